//go:build linux

package faultfs

import (
	"maps"
	"slices"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// filesystem answers the kernel for one mount of the disk. Names and attributes
// are never cached, so that a fault shows at once; pages are, as mappings need.
type filesystem struct {
	fuse.RawFileSystem // answers ENOSYS to what is not below
	disk               *disk

	mu   sync.Mutex // above what follows
	open map[uint64][]fuse.DirEntry
	last uint64 // handle of a directory given
}

func newFilesystem(d *disk) *filesystem {
	return &filesystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), disk: d, open: map[uint64][]fuse.DirEntry{}}
}

// String names the kind of file system.
func (s *filesystem) String() string { return mountName }

// look finds a node for an operation that changes nothing.
func (s *filesystem) look(num uint64) (*inode, fuse.Status) {
	if Fault(s.disk.fault.Load()) == Gone {
		return nil, fuse.EIO
	}
	n, err := s.disk.node(num)
	return n, fuse.ToStatus(err)
}

// alter finds a node for an operation that changes something.
func (s *filesystem) alter(num uint64) (*inode, fuse.Status) {
	if Fault(s.disk.fault.Load()) == ReadOnly {
		return nil, fuse.EROFS
	}
	return s.look(num)
}

// alterFile is alter for a file's data.
func (s *filesystem) alterFile(num uint64) (*body, fuse.Status) {
	n, status := s.alter(num)
	if !status.Ok() {
		return nil, status
	}
	if n.isDir() {
		return nil, fuse.Status(unix.EISDIR)
	}
	return n.body, fuse.OK
}

// attributes fills in what stat(2) shows.
func (s *filesystem) attributes(n *inode, out *fuse.Attr) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	size, held, modified := int64(blockSize), int64(1), n.modified
	if !n.isDir() {
		size, held, modified = n.body.stat()
	}
	*out = fuse.Attr{
		Ino: n.num, Size: uint64(size), Blocks: uint64(held * blockSize / 512), Blksize: blockSize,
		Mode: n.mode, Nlink: uint32(n.links), Owner: fuse.Owner{Uid: n.uid, Gid: n.gid},
	}
	out.SetTimes(&modified, &modified, &modified)
}

// entry answers with a node that the kernel now knows.
func (s *filesystem) entry(n *inode, err error, out *fuse.EntryOut) fuse.Status {
	if err != nil {
		return fuse.ToStatus(err)
	}
	out.NodeId = n.num
	s.attributes(n, &out.Attr)
	return fuse.OK
}

// Lookup finds a name.
func (s *filesystem) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if _, status := s.look(in.NodeId); !status.Ok() {
		return status
	}
	n, err := s.disk.lookup(in.NodeId, name)
	return s.entry(n, err, out)
}

// Forget undoes lookups.
func (s *filesystem) Forget(num, count uint64) { s.disk.forget(num, count) }

// GetAttr is stat.
func (s *filesystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, status := s.look(in.NodeId)
	if status.Ok() {
		s.attributes(n, &out.Attr)
	}
	return status
}

// SetAttr is chmod, chown, truncate and utimes.
func (s *filesystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, status := s.alter(in.NodeId)
	if !status.Ok() {
		return status
	}
	if size, ok := in.GetSize(); ok {
		if err := s.truncate(n, int64(size)); err != nil {
			return fuse.ToStatus(err)
		}
	}
	if modified, ok := in.GetMTime(); ok && !n.isDir() {
		n.body.touch(modified)
	}
	s.own(n, in)
	s.attributes(n, &out.Attr)
	return fuse.OK
}

func (s *filesystem) own(n *inode, in *fuse.SetAttrIn) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if mode, ok := in.GetMode(); ok {
		n.mode = n.mode&unix.S_IFMT | mode
	}
	if uid, ok := in.GetUID(); ok {
		n.uid = uid
	}
	if gid, ok := in.GetGID(); ok {
		n.gid = gid
	}
	if modified, ok := in.GetMTime(); ok {
		n.modified = modified
	}
}

func (s *filesystem) truncate(n *inode, size int64) error {
	if n.isDir() {
		return unix.EISDIR
	}
	if err := n.body.open(); err != nil {
		return err
	}
	defer s.disk.closed(n)
	return n.body.truncate(size)
}

func (s *filesystem) make(in *fuse.InHeader, name string, mode uint32, out *fuse.EntryOut) (*inode, fuse.Status) {
	if _, status := s.alter(in.NodeId); !status.Ok() {
		return nil, status
	}
	n, err := s.disk.create(in.NodeId, name, mode, in.Uid, in.Gid)
	return n, s.entry(n, err, out)
}

// Mknod makes a plain file and nothing else.
func (s *filesystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if in.Mode&unix.S_IFMT != unix.S_IFREG {
		return fuse.EPERM
	}
	_, status := s.make(&in.InHeader, name, in.Mode, out)
	return status
}

// Mkdir makes a directory.
func (s *filesystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	_, status := s.make(&in.InHeader, name, in.Mode&^unix.S_IFMT|unix.S_IFDIR, out)
	return status
}

// Create makes a file and opens it.
func (s *filesystem) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	n, status := s.make(&in.InHeader, name, in.Mode&^unix.S_IFMT|unix.S_IFREG, &out.EntryOut)
	if !status.Ok() {
		return status
	}
	return openBody(n, &out.OpenOut)
}

// Unlink removes a file's name.
func (s *filesystem) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return s.remove(in, name, false)
}

// Rmdir removes an empty directory.
func (s *filesystem) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return s.remove(in, name, true)
}

func (s *filesystem) remove(in *fuse.InHeader, name string, dir bool) fuse.Status {
	if _, status := s.alter(in.NodeId); !status.Ok() {
		return status
	}
	return fuse.ToStatus(s.disk.remove(in.NodeId, name, dir))
}

// Rename is renameat2.
func (s *filesystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, old, name string) fuse.Status {
	if _, status := s.alter(in.NodeId); !status.Ok() {
		return status
	}
	return fuse.ToStatus(s.disk.rename(in.NodeId, old, in.Newdir, name, in.Flags))
}

// Link gives a file one more name.
func (s *filesystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if _, status := s.alter(in.NodeId); !status.Ok() {
		return status
	}
	n, err := s.disk.link(in.Oldnodeid, in.NodeId, name)
	return s.entry(n, err, out)
}

// Open opens a file.
func (s *filesystem) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	find := s.look
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		find = s.alter
	}
	n, status := find(in.NodeId)
	if !status.Ok() {
		return status
	}
	return openBody(n, out)
}

// openBody asks for no word at close: a process that is between fork and exec
// while the runtime of the test stands still would wait for the answer.
func openBody(n *inode, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return fuse.ToStatus(n.body.open())
}

// Release is the last close of an open file.
func (s *filesystem) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if n, err := s.disk.node(in.NodeId); err == nil {
		s.disk.closed(n)
	}
}

// Read fills the page cache.
func (s *filesystem) Read(_ <-chan struct{}, in *fuse.ReadIn, dst []byte) (fuse.ReadResult, fuse.Status) {
	n, status := s.look(in.NodeId)
	if !status.Ok() {
		return nil, status
	}
	got, err := n.body.read(dst, int64(in.Offset))
	return fuse.ReadResultData(dst[:got]), fuse.ToStatus(err)
}

// Write is write(2) as it happens, or dirty pages of a mapping.
func (s *filesystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	b, status := s.alterFile(in.NodeId)
	if !status.Ok() {
		return 0, status
	}
	if err := b.write(data, int64(in.Offset)); err != nil {
		return 0, fuse.ToStatus(err)
	}
	return uint32(len(data)), fuse.OK
}

// Fallocate holds space or punches holes.
func (s *filesystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	b, status := s.alterFile(in.NodeId)
	if !status.Ok() {
		return status
	}
	off, end := int64(in.Offset), int64(in.Offset+in.Length)
	switch in.Mode {
	case 0, unix.FALLOC_FL_KEEP_SIZE:
		return fuse.ToStatus(b.allocate(off, end, in.Mode != 0))
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE:
		return fuse.ToStatus(b.punch(off, end))
	}
	return fuse.Status(unix.EOPNOTSUPP)
}

// Fsync is fsync, fdatasync and msync: the kernel sends dirty pages before.
func (s *filesystem) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, status := s.alter(in.NodeId)
	if status.Ok() {
		s.disk.sync(n)
	}
	return status
}

// FsyncDir is fsync of a directory.
func (s *filesystem) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return s.Fsync(cancel, in)
}

// OpenDir begins a listing.
func (s *filesystem) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if _, status := s.look(in.NodeId); !status.Ok() {
		return status
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	out.Fh = s.last
	return fuse.OK
}

// ReadDir lists the directory as it was when read from the start, so that
// removing what is read skips nothing.
func (s *filesystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if _, status := s.look(in.NodeId); !status.Ok() {
		return status
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Offset == 0 {
		names, err := s.disk.list(in.NodeId)
		if err != nil {
			return fuse.ToStatus(err)
		}
		s.open[in.Fh] = entries(names)
	}
	list := s.open[in.Fh]
	for _, e := range list[min(in.Offset, uint64(len(list))):] {
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

func entries(names map[string]*inode) []fuse.DirEntry {
	var list []fuse.DirEntry
	for i, name := range slices.Sorted(maps.Keys(names)) {
		kind := uint32(unix.S_IFREG)
		if names[name].isDir() {
			kind = unix.S_IFDIR
		}
		list = append(list, fuse.DirEntry{Name: name, Mode: kind, Ino: names[name].num, Off: uint64(i) + 1})
	}
	return list
}

// ReleaseDir ends a listing.
func (s *filesystem) ReleaseDir(in *fuse.ReleaseIn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, in.Fh)
}

// StatFs is the backing file system's, with as much room as the disk has left.
func (s *filesystem) StatFs(_ <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if _, status := s.look(in.NodeId); !status.Ok() {
		return status
	}
	return fuse.ToStatus(s.disk.statfs(out))
}

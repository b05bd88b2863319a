//go:build linux

package faultfs

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// rootNum is the number of the top directory, as FUSE has it.
const rootNum = 1

// disk holds what the mount shows, and what of it would outlive a power cut. The
// tree lives in memory; the data of each file in a backing file named by its
// number.
type disk struct {
	dir   string // of the backing files
	conf  Config
	space space
	fault atomic.Int32 // a Fault

	mu      sync.Mutex // above the tree: everything below and in its inodes
	nodes   map[uint64]*inode
	last    uint64 // number given
	journal []change
}

// inode is a file or a directory, whatever its names. Its fields are under the
// mutex of the disk, but for body, which has its own.
type inode struct {
	num      uint64
	body     *body // nil: a directory
	mode     uint32
	uid, gid uint32
	modified time.Time // of a directory

	names   map[string]*inode // of a directory, now
	durable map[string]*inode // of a directory, as of its last fsync

	links int    // names it has now
	past  int    // its parts in the journal; what has a durable name only is in one
	known uint64 // times the kernel looked it up and did not forget it
}

func newDisk(dir string, conf Config) *disk {
	d := &disk{dir: dir, conf: conf, nodes: map[uint64]*inode{}}
	root := d.add(unix.S_IFDIR|0o755, uint32(os.Getuid()), uint32(os.Getgid()))
	root.links = 1
	return d
}

// add makes a file or directory that has no name yet. mode includes the type.
func (d *disk) add(mode, uid, gid uint32) *inode {
	d.last++
	n := &inode{num: d.last, mode: mode, uid: uid, gid: gid, modified: time.Now()}
	if mode&unix.S_IFMT == unix.S_IFDIR {
		n.names, n.durable = map[string]*inode{}, map[string]*inode{}
	} else {
		n.body = newBody(filepath.Join(d.dir, fmt.Sprintf("%08d", n.num)), &d.space)
	}
	d.nodes[n.num] = n
	return n
}

func (n *inode) isDir() bool { return n.body == nil }

// keep counts its parts in the journal; nobody is nothing to count.
func (n *inode) keep(by int) {
	if n != nil {
		n.past += by
	}
}

// set gives a name in a directory to another inode, or to none.
func (n *inode) set(name string, to *inode) {
	if was := n.names[name]; was != nil {
		was.links--
	}
	delete(n.names, name)
	if to != nil {
		n.names[name] = to
		to.links++
	}
	n.modified = time.Now()
}

// engrave is set for the durable names.
func (n *inode) engrave(name string, to *inode) {
	delete(n.durable, name)
	if to != nil {
		n.durable[name] = to
	}
}

// settle gives back what n no longer needs: its space if no name or process
// reaches it, its backing file if no power cut could bring it back either.
func (d *disk) settle(n *inode) {
	if n == nil || n.links > 0 {
		return
	}
	if n.body != nil {
		if n.body.isOpen() {
			return
		}
		n.body.vacate()
	}
	if n.past == 0 && n.known == 0 {
		d.destroy(n)
	}
}

func (d *disk) destroy(n *inode) {
	delete(d.nodes, n.num)
	if n.body != nil {
		os.Remove(n.body.path) // was perhaps never opened, so never made
	}
}

// node finds what the kernel calls by a number.
func (d *disk) node(num uint64) (*inode, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.nodes[num]
	if n == nil {
		return nil, unix.ESTALE
	}
	return n, nil
}

// directory is node for a directory that can take names. Caller holds the mutex.
func (d *disk) directory(num uint64) (*inode, error) {
	n := d.nodes[num]
	switch {
	case n == nil:
		return nil, unix.ESTALE
	case !n.isDir():
		return nil, unix.ENOTDIR
	case n.links == 0:
		return nil, unix.ENOENT
	}
	return n, nil
}

// lookup finds a name, for the kernel to know.
func (d *disk) lookup(parent uint64, name string) (*inode, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, err := d.directory(parent)
	if err != nil {
		return nil, err
	}
	n := dir.names[name]
	if n == nil {
		return nil, unix.ENOENT
	}
	n.known++
	return n, nil
}

// enter gives a name that is free to what find returns, for the kernel to know.
func (d *disk) enter(parent uint64, name string, find func() (*inode, error)) (*inode, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, err := d.directory(parent)
	if err != nil {
		return nil, err
	}
	if dir.names[name] != nil {
		return nil, unix.EEXIST
	}
	if d.space.room() == 0 {
		return nil, unix.ENOSPC
	}
	n, err := find()
	if err != nil {
		return nil, err
	}
	d.record(change{{dir, name, nil, n}})
	n.known++
	return n, nil
}

func (d *disk) create(parent uint64, name string, mode, uid, gid uint32) (*inode, error) {
	return d.enter(parent, name, func() (*inode, error) { return d.add(mode, uid, gid), nil })
}

func (d *disk) link(num, parent uint64, name string) (*inode, error) {
	return d.enter(parent, name, func() (*inode, error) {
		n := d.nodes[num]
		if n == nil || n.links == 0 {
			return nil, unix.ENOENT
		}
		return n, nil
	})
}

// remove takes a name away; wantDir says that it must be a directory's.
func (d *disk) remove(parent uint64, name string, wantDir bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, err := d.directory(parent)
	if err != nil {
		return err
	}
	n := dir.names[name]
	switch {
	case n == nil:
		return unix.ENOENT
	case wantDir && !n.isDir():
		return unix.ENOTDIR
	case !wantDir && n.isDir():
		return unix.EISDIR
	case len(n.names) > 0:
		return unix.ENOTEMPTY
	}
	d.record(change{{dir, name, n, nil}})
	return nil
}

// rename moves a name; flags are those of renameat2(2).
func (d *disk) rename(from uint64, old string, to uint64, name string, flags uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	src, err := d.directory(from)
	if err != nil {
		return err
	}
	dst, err := d.directory(to)
	if err != nil {
		return err
	}
	n, target := src.names[old], dst.names[name]
	switch {
	case flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0:
		return unix.EINVAL
	case n == nil:
		return unix.ENOENT
	case flags&unix.RENAME_NOREPLACE != 0 && target != nil:
		return unix.EEXIST
	case flags&unix.RENAME_EXCHANGE != 0 && target == nil:
		return unix.ENOENT
	case flags&unix.RENAME_EXCHANGE != 0:
		d.record(change{{src, old, n, target}, {dst, name, target, n}})
		return nil
	case n == target:
		return nil
	case target != nil && len(target.names) > 0:
		return unix.ENOTEMPTY
	}
	d.record(change{{src, old, n, nil}, {dst, name, target, n}})
	return nil
}

// list is what a directory holds now.
func (d *disk) list(num uint64) (map[string]*inode, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.nodes[num]
	if n == nil {
		return nil, unix.ESTALE
	}
	return maps.Clone(n.names), nil
}

// sync makes durable what fsync of n promises.
func (d *disk) sync(n *inode) {
	if n.body != nil {
		n.body.sync()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n.isDir() || d.conf.Ordered {
		d.commit(func(c change) bool { return c.within(n) || d.conf.Ordered && c.names(n) })
	}
}

// forget is the kernel's word that it no longer knows n by count of lookups.
func (d *disk) forget(num, count uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.nodes[num]; n != nil && num != rootNum {
		n.known -= min(count, n.known)
		d.settle(n)
	}
}

// closed is called when a process let go of n.
func (d *disk) closed(n *inode) {
	n.body.close()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settle(n)
}

// letGo closes what a mount that is gone had open.
func (d *disk) letGo() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.nodes {
		if n.body != nil {
			n.body.letGo()
		}
	}
}

// files are the numbers of all files.
func (d *disk) files() []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	var nums []uint64
	for num, n := range d.nodes {
		if !n.isDir() {
			nums = append(nums, num)
		}
	}
	return nums
}

// statfs is that of the backing file system, as far as there is room.
func (d *disk) statfs(out *fuse.StatfsOut) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &st); err != nil {
		return err
	}
	out.FromStatfsT(&st)
	perBlock := uint64(st.Frsize)
	out.Blocks = out.Blocks * perBlock / blockSize
	out.Bavail = min(out.Bavail*perBlock/blockSize, uint64(d.space.room()))
	out.Bfree = out.Bavail
	out.Bsize, out.Frsize = blockSize, blockSize
	if d.conf.Capacity > 0 {
		out.Blocks = uint64(d.conf.Capacity / blockSize)
	}
	return nil
}

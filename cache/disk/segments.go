package disk

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
)

// bufferSize is how many bytes Append gathers before it writes them.
const bufferSize = 256 << 10

// Segments are the small objects of a volume, in files of up to SegmentSize that
// are only appended to and leave whole. Those of an earlier run are sealed. All
// methods are safe for concurrent use.
type Segments struct {
	dir   string
	log   *slog.Logger
	files *handles

	flushing sync.Mutex // one Flush at a time; taken before appending

	// appending is held by who changes what follows, across its I/O; it is taken
	// before mu.
	appending sync.Mutex
	next      uint32
	reserved  uint32 // numbers below it are taken on disk
	unsynced  []*segment
	born      bool  // there is a segment whose directory entry is not durable
	lost      error // why some of what Append took is lost; for the next Flush
	closed    bool

	// mu guards current and what it points to. Readers hold it to look into the
	// buffer; changing them takes both locks.
	mu      sync.Mutex
	current *segment
}

// segment is one that was written to since the last Flush.
type segment struct {
	*handle
	id      uint32
	written int64  // bytes in the file
	buf     []byte // what follows them
	synced  int64  // bytes that are durable; guarded by Segments.flushing
}

func (c *segment) size() int64 { return c.written + int64(len(c.buf)) }

// SegmentInfo describes a segment.
type SegmentInfo struct {
	ID     uint32
	Bytes  int64 // that it takes, or, unless sealed, has so far
	Sealed bool  // nothing is appended to it any more
}

// Append adds an object: a card of up to MaxCard bytes and a body of up to
// MaxSmall. It can be read at once and is durable after the next Flush. The error
// wraps ErrFull if there is no room for a further segment.
func (s *Segments) Append(num uint64, card, body []byte) (Place, error) {
	if err := checkCard(card); err != nil {
		return Place{}, fmt.Errorf("append object %d: %w", num, err)
	}
	if len(body) > MaxSmall {
		return Place{}, fmt.Errorf("append object %d: body has %d bytes, %d is the most", num, len(body), MaxSmall)
	}
	s.appending.Lock()
	defer s.appending.Unlock()
	p, err := s.append(num, card, body)
	if err != nil {
		return Place{}, within(fmt.Sprintf("append object %d", num), err)
	}
	return p, nil
}

// append does it; s.appending is held.
func (s *Segments) append(num uint64, card, body []byte) (Place, error) {
	if s.closed {
		return Place{}, os.ErrClosed
	}
	n := recordHead + len(card) + len(body)
	if s.current != nil && s.current.size()+int64(n) > SegmentSize {
		s.seal()
	}
	if s.current == nil {
		if err := s.begin(); err != nil {
			return Place{}, err
		}
	}
	c := s.current
	p := Place{Segment: c.id, Off: uint32(c.size()), Len: uint32(n)}
	s.mu.Lock()
	c.buf = appendRecord(c.buf, p, c.salt, num, card, body)
	s.mu.Unlock()
	if len(c.buf) < bufferSize {
		return p, nil
	}
	return p, s.write()
}

// write hands the buffer to the kernel. If that fails, what Append took since the
// last Flush is given up: s.lost says so. s.appending is held.
func (s *Segments) write() error {
	c := s.current
	if len(c.buf) == 0 {
		return nil
	}
	if _, err := c.file.WriteAt(c.buf, c.written); err != nil {
		s.giveUp(err)
		return err
	}
	s.mu.Lock()
	c.written += int64(len(c.buf))
	c.buf = c.buf[:0]
	s.mu.Unlock()
	return nil
}

// giveUp ends a segment whose bytes did not get to the disk; s.appending is held.
func (s *Segments) giveUp(why error) {
	s.lost = errors.Join(s.lost, why)
	_ = s.current.file.Truncate(s.current.written) // gives the room back, if it can
	s.leave()
}

// leave makes the current segment one to be synced; s.appending is held.
func (s *Segments) leave() {
	c := s.current
	s.files.resize(c.id, c.written)
	s.unsynced = append(s.unsynced, c)
	s.mu.Lock()
	c.buf = nil
	s.current = nil
	s.mu.Unlock()
}

// seal ends the current segment; s.appending is held. What goes wrong is for the
// next Flush to tell: it concerns objects that Append took before.
func (s *Segments) seal() {
	if s.write() != nil {
		return
	}
	if err := s.current.file.Truncate(s.current.written); err != nil {
		s.lost = errors.Join(s.lost, err)
	}
	s.leave()
}

// begin makes a new segment; s.appending is held.
func (s *Segments) begin() error {
	if err := s.reserve(); err != nil {
		return err
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	salt, path := binary.BigEndian.Uint64(random[:]), segmentPath(s.dir, s.next)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = allocate(f, SegmentSize); err == nil {
		_, err = f.WriteAt(appendSegmentHead(nil, s.next, salt), 0)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(path))
	}
	c := &segment{
		handle: s.files.begin(s.next, f, salt), id: s.next, written: segmentHead,
		buf: make([]byte, 0, bufferSize+align(recordMax)),
	}
	s.next++
	s.born = true
	s.mu.Lock()
	s.current = c
	s.mu.Unlock()
	return nil
}

// Flush makes durable what Append took before the call. An error says that what
// Append took since the last Flush that succeeded may be lost: it is to be
// appended again or forgotten, for it will never be durable.
func (s *Segments) Flush() error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.appending.Lock()
	if s.current != nil {
		_ = s.write() // told by s.lost
	}
	files, current, size := s.unsynced, s.current, int64(0)
	if current != nil {
		size = current.size()
	}
	s.unsynced = nil
	failed, born := s.lost, s.born
	s.lost, s.born = nil, false
	s.appending.Unlock()

	if current != nil && current.synced < size {
		err := syncData(current.file)
		if err == nil {
			current.synced = size
		}
		failed = errors.Join(failed, err)
	}
	for _, c := range files {
		failed = errors.Join(failed, syncData(c.file))
		s.files.put(c.handle)
	}
	if born {
		failed = errors.Join(failed, syncDir(s.dir))
	}
	if failed == nil {
		return nil
	}
	s.appending.Lock()
	defer s.appending.Unlock()
	s.born = s.born || born
	// After a sync that failed the kernel holds the pages for clean: nothing
	// more may rest upon that segment. What came meanwhile is lost with it, and
	// for the next Flush to tell.
	if current != nil && s.current == current {
		if current.size() == size {
			s.leave()
		} else {
			s.giveUp(failed)
		}
	}
	return within("flush segments", failed)
}

// Read reads an object. card and body lie in dst if it is large enough (p.Len
// bytes). The error wraps ErrDamaged if what lies there is not object num,
// unharmed, and fs.ErrNotExist if the segment is gone.
func (s *Segments) Read(p Place, num uint64, dst []byte) (card, body []byte, err error) {
	card, body, err = s.read(p, num, dst)
	if err != nil { // else the words would cost more than the read
		return nil, nil, within(fmt.Sprintf("read object %d", num), err)
	}
	return card, body, nil
}

func (s *Segments) read(p Place, num uint64, dst []byte) (card, body []byte, err error) {
	if p.Len < recordHead || p.Len > recordMax || p.Off < segmentHead || p.Off > SegmentSize {
		return nil, nil, fmt.Errorf("place %v: %w", p, ErrDamaged)
	}
	x, err := s.files.get(p.Segment)
	if err != nil {
		return nil, nil, err
	}
	defer s.files.put(x)
	if cap(dst) < int(p.Len) {
		dst = make([]byte, p.Len)
	}
	dst = dst[:p.Len]
	if !s.buffered(p, dst) {
		n, err := x.file.ReadAt(dst, int64(p.Off))
		if err != nil && err != io.EOF {
			return nil, nil, err
		}
		dst = dst[:n]
	}
	r, err := parseRecord(dst, p, x.salt)
	if err != nil {
		return nil, nil, err
	}
	if r.num != num || r.place != p {
		return nil, nil, fmt.Errorf("object %d lies at %d in segment %d: %w", r.num, p.Off, p.Segment, ErrDamaged)
	}
	return r.split()
}

// buffered copies a record that has not been written yet.
func (s *Segments) buffered(p Place, dst []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.current
	if c == nil || c.id != p.Segment || int64(p.Off) < c.written || int64(p.Off)+int64(p.Len) > c.size() {
		return false
	}
	copy(dst, c.buf[int64(p.Off)-c.written:])
	return true
}

// Remove removes a segment with all that is in it; reads that have begun end
// well. A segment that is not there is no error.
func (s *Segments) Remove(segment uint32) error {
	s.appending.Lock()
	if s.current != nil && s.current.id == segment {
		s.leave()
	}
	s.appending.Unlock()
	s.files.idle(segment)
	if err := os.Remove(segmentPath(s.dir, segment)); err != nil && !missing(err) {
		return within(fmt.Sprintf("remove segment %d", segment), err)
	}
	s.files.drop(segment)
	return nil
}

// List lists the segments, oldest first.
func (s *Segments) List() []SegmentInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	list := make([]SegmentInfo, 0, len(s.files.sizes))
	for id, size := range s.files.sizes {
		i := SegmentInfo{ID: id, Bytes: size, Sealed: true}
		if s.current != nil && s.current.id == id {
			i.Bytes, i.Sealed = s.current.size(), false
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b SegmentInfo) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Scan reads a whole segment and says what is in it, in order, until use returns
// false: number, place, card and the size of the body. A record that is damaged
// comes with an error that wraps ErrDamaged, and with its number if that is sure.
// The card is valid during the call only. The error is of the disk, or wraps
// ErrDamaged if the segment's own header is not sound: then nothing in it is.
func (s *Segments) Scan(segment uint32, use func(num uint64, p Place, card []byte, size int, err error) bool) error {
	err := s.scan(segment, func(r record, card, _ []byte, err error) bool {
		return use(r.num, r.place, card, int(r.body), err)
	})
	return within(fmt.Sprintf("scan segment %d", segment), err)
}

func (s *Segments) scan(id uint32, use func(r record, card, body []byte, err error) bool) error {
	s.appending.Lock()
	if s.current != nil && s.current.id == id {
		_ = s.write() // told by s.lost
	}
	s.appending.Unlock()
	x, err := s.files.get(id)
	if err != nil {
		return err
	}
	defer s.files.put(x)
	data, err := readSegment(x.file)
	if err != nil {
		return err
	}
	scanRecords(data, id, x.salt, use)
	return nil
}

// readSegment reads all of a segment, and no more than one can have.
func readSegment(f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data := make([]byte, min(st.Size(), SegmentSize))
	n, err := f.ReadAt(data, 0)
	if err == io.EOF {
		err = nil
	}
	return data[:n], err
}

// close seals the current segment and makes it durable.
func (s *Segments) close() error {
	s.appending.Lock()
	if s.current != nil {
		s.seal()
	}
	s.closed = true
	s.appending.Unlock()
	err := s.Flush()
	s.files.close()
	return err
}

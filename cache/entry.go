package cache

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
	"github.com/cistern-edge/cistern/cache/evict"
)

// entry is what memory keeps of each object: enough to find, count and evict
// it. What people read of it (title, names, figures) stays in the index. Store.mu
// guards it.
type entry struct {
	node    evict.Node
	size    int64 // or content.UnknownSize
	here    int64 // bytes that are here of an object of unknown size, or of a part
	used    int64 // seconds since 1970 of the last request
	place   disk.Place
	flags   flag
	trust   uint8
	volume  uint8
	service uint8
}

// evictState is what is saved of an entry's place in its eviction queue.
type evictState = evict.State

type flag uint8

const (
	isComplete flag = 1 << iota
	isPublic
	isPinned
	isSmall // in a segment, or in memory on its way there
	inMain  // of its eviction queue; only in a record
	// isChecked says that all of the body was hashed since the start. It is
	// never saved.
	isChecked
	// isPart says that only ranges were asked for: it takes as much room as is
	// here of it.
	isPart
)

func (e *entry) num() uint64    { return e.node.Num }
func (e *entry) is(f flag) bool { return e.flags&f != 0 }
func (e *entry) set(f flag, on bool) {
	e.flags &^= f
	if on {
		e.flags |= f
	}
}

// reserved is how much room the object counts for, in bytes.
func (e *entry) reserved() int64 {
	if e.size < 0 || e.is(isPart) {
		return e.here
	}
	return e.size
}

// touch notes a request.
func (e *entry) touch(now time.Time) { e.used = now.Unix() }

// ghostOf is the mark by which an eviction queue remembers a name.
func ghostOf(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return h.Sum64()
}

// An entry's record is 52 bytes: version, flags, trust, volume, service,
// frequency of use, two spare bytes, then size, bytes here, time of last use,
// ghost (8 bytes each) and where a small object is: segment, offset and length
// (4 bytes each), all big-endian.
const (
	entryVersion = 2
	entrySize    = 52
)

func (e *entry) encode() []byte {
	state := e.node.State()
	flags := e.flags &^ (inMain | isChecked)
	if state.Main {
		flags |= inMain
	}
	b := []byte{entryVersion, byte(flags), e.trust, e.volume, e.service, state.Freq, 0, 0}
	b = binary.BigEndian.AppendUint64(b, uint64(e.size))
	b = binary.BigEndian.AppendUint64(b, uint64(e.here))
	b = binary.BigEndian.AppendUint64(b, uint64(e.used))
	b = binary.BigEndian.AppendUint64(b, e.node.Ghost)
	b = binary.BigEndian.AppendUint32(b, e.place.Segment)
	b = binary.BigEndian.AppendUint32(b, e.place.Off)
	return binary.BigEndian.AppendUint32(b, e.place.Len)
}

// decode reads what encode wrote. The index has checked that the bytes are
// those that were written; what they say is checked here.
func (e *entry) decode(key, b []byte) (evict.State, error) {
	if len(key) != 9 || len(b) != entrySize || b[0] != entryVersion {
		return evict.State{}, fmt.Errorf("record %x is not that of an object", key)
	}
	e.node.Num = binary.BigEndian.Uint64(key[1:])
	e.flags = flag(b[1]) &^ (inMain | isChecked)
	e.trust, e.volume, e.service = b[2], b[3], b[4]
	e.size = int64(binary.BigEndian.Uint64(b[8:]))
	e.here = int64(binary.BigEndian.Uint64(b[16:]))
	e.used = int64(binary.BigEndian.Uint64(b[24:]))
	e.node.Ghost = binary.BigEndian.Uint64(b[32:])
	e.place = disk.Place{Segment: binary.BigEndian.Uint32(b[40:]), Off: binary.BigEndian.Uint32(b[44:]), Len: binary.BigEndian.Uint32(b[48:])}
	if e.size < content.UnknownSize || e.here < 0 || e.is(isComplete) && e.size < 0 {
		return evict.State{}, fmt.Errorf("record %x: size %d with %d bytes here", key, e.size, e.here)
	}
	return evict.State{Main: flag(b[1])&inMain != 0, Freq: b[5]}, nil
}

package peering

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

func TestAssemblies(t *testing.T) {
	const block = 16 << 10
	var used atomic.Int64
	as := &assemblies{used: &used, of: map[int]*assembly{}}
	if as.write(3, make([]byte, block), 0) {
		t.Error("took bytes of a piece that was not begun")
	}
	as.begin(3, 2*block)
	as.begin(3, 2*block) // by two peers at once
	first, second := bytes.Repeat([]byte{1}, block), bytes.Repeat([]byte{2}, block)
	if !as.write(3, second, block) {
		t.Fatal("did not take a block")
	}
	if _, ok := as.whole(3); ok {
		t.Error("half a piece is whole")
	}
	as.write(3, first, 0)
	if b, ok := as.whole(3); !ok || !bytes.Equal(b, append(first, second...)) {
		t.Error("the piece is not what was written")
	}
	if used.Load() != 2*block {
		t.Errorf("%d bytes are counted", used.Load())
	}
	a := as.take(3)
	if a == nil || used.Load() != 0 || as.take(3) != nil {
		t.Errorf("taken %v, %d bytes counted", a, used.Load())
	}
	as.reuse(a)
	as.begin(4, block) // in the memory of the last one
	as.write(4, second, 0)
	if b, ok := as.whole(4); !ok || !bytes.Equal(b, second) {
		t.Error("a smaller piece is not what was written")
	}
	as.clear()
	if used.Load() != 0 {
		t.Errorf("%d bytes are counted of nothing", used.Load())
	}
}

func TestAssembliesAreBounded(t *testing.T) {
	var used atomic.Int64
	one := &assemblies{used: &used, of: map[int]*assembly{}}
	two := &assemblies{used: &used, of: map[int]*assembly{}}
	one.begin(0, maxAssembled-1)
	if two.begin(0, 2); two.write(0, []byte{1}, 0) {
		t.Error("two torrents hold more than may be held")
	}
	one.clear()
	if two.begin(0, 2); !two.write(0, []byte{1}, 0) {
		t.Error("room that was given back is not used")
	}
}

// What has come into memory of a piece is in the store when somebody reads it who
// does not have all of it there: a mirror brings the rest.
func TestHalfAPieceIsKept(t *testing.T) {
	p, sink := assembling(t, 4)
	half := &piece{pieces: p, index: 1, size: 4}
	if _, err := half.WriteAt([]byte("ab"), 0); err != nil {
		t.Fatal(err)
	}
	if sink.Len() != 0 {
		t.Errorf("%q was written of half a piece", sink.bytes)
	}
	if _, err := sink.WriteAt([]byte("cd"), 6); err != nil { // the mirror
		t.Fatal(err)
	}
	var got bytes.Buffer
	if n, err := half.WriteTo(&got); err != nil || n != 4 || got.String() != "abcd" {
		t.Errorf("read %q: %v", got.String(), err)
	}
	if _, err := half.WriteAt([]byte("xy"), 0); err != nil { // again, from the start
		t.Fatal(err)
	}
	if b, _ := p.files[0].sink.(*plainSink); string(b.bytes[4:8]) != "xycd" {
		t.Errorf("the store has %q", b.bytes)
	}
}

// A piece that came into memory is in the store before readers may have it; one
// that is wrong never is.
func TestPieceIsWrittenOnceRight(t *testing.T) {
	p, sink := assembling(t, 4)
	wrong, right := &piece{pieces: p, index: 0, size: 4}, &piece{pieces: p, index: 1, size: 4}
	for _, each := range []*piece{wrong, right} {
		if _, err := each.WriteAt([]byte("data"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(wrong.MarkNotComplete(), right.MarkComplete()); err != nil {
		t.Fatal(err)
	}
	if string(sink.bytes) != "\x00\x00\x00\x00data" || len(sink.accepted) != 1 || sink.accepted[0] != (content.Range{Off: 4, End: 8}) {
		t.Errorf("the store has %q, readers %v", sink.bytes, sink.accepted)
	}
	sink.err = errors.New("disk is full")
	var told error
	p.broken = func(err error) { told = err }
	if _, err := wrong.WriteAt([]byte("data"), 0); err != nil {
		t.Fatal(err)
	}
	if err := wrong.MarkComplete(); !errors.Is(err, sink.err) || !errors.Is(told, sink.err) || p.isDone(0) {
		t.Errorf("a piece that was not written: %v, told %v, done %v", err, told, p.isDone(0))
	}
}

// plainSink is the sink of a file that has nothing.
type plainSink struct {
	content.Sink
	bytes    []byte
	accepted content.Ranges
	err      error
}

func (m *plainSink) Len() int { return len(m.bytes) }

func (m *plainSink) WriteAt(b []byte, off int64) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	if need := int(off) + len(b); need > len(m.bytes) {
		m.bytes = append(m.bytes, make([]byte, need-len(m.bytes))...)
	}
	return copy(m.bytes[off:], b), nil
}

func (m *plainSink) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(m.bytes).ReadAt(b, off)
}

func (m *plainSink) Accept(r content.Range) error {
	m.accepted.Add(r)
	return nil
}

// assembling has two pieces of so many bytes in one file, and nothing of them.
func assembling(t *testing.T, size int64) (*pieces, *plainSink) {
	t.Helper()
	sink := &plainSink{}
	f := &file{part: part{path: "a", size: 2 * size}, sink: sink, news: make(chan struct{}, 1)}
	f.missing.Store(2 * size)
	l := &layout{pieceLength: size, pieces: 2, files: []part{f.part}}
	var used atomic.Int64
	p := newPieces(l, []*file{f}, &used)
	clear(p.done) // a file without a fill is taken for complete
	return p, sink
}

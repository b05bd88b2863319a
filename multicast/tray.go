package multicast

import (
	"errors"
	"fmt"

	"github.com/cistern-edge/cistern/cache/content"
)

// errTrayClosed says that the session is over and nothing is written any more.
var errTrayClosed = errors.New("session is over")

// tray is the norm.Sink of one extent. What is written is accepted; the
// object's layer proves it.
type tray struct {
	sink    content.Sink
	extent  content.Range
	missing content.Ranges // of the object, when the session was joined

	gather gather
	all    content.Ranges // of the object, written at any time
	closed bool

	bad int   // blocks that the layer refuted
	err error // of the sink; nothing is written after it
}

func newTray(sink content.Sink, extent content.Range, pool *gatherPool) *tray {
	t := &tray{sink: sink, extent: extent}
	t.gather = gather{write: t.write, read: sink.ReadAt, pool: pool}
	for _, gap := range sink.Missing() {
		t.missing.Add(gap.Clip(extent))
	}
	return t
}

// WriteAt implements norm.Sink; off counts from the extent's start.
func (t *tray) WriteAt(p []byte, off int64) (int, error) {
	r := content.Range{Off: t.extent.Off + off, End: t.extent.Off + off + int64(len(p))}
	switch {
	case t.closed:
		return 0, errTrayClosed
	case t.err != nil:
		return 0, t.err
	case off < 0 || r.End > t.extent.End:
		return 0, fmt.Errorf("write %s outside of extent %s", r, t.extent)
	}
	if err := t.gather.put(p, r); err != nil {
		return 0, err
	}
	t.all.Add(r)
	return len(p), nil
}

// ReadAt implements norm.Sink: it gives zeros for what was not written.
func (t *tray) ReadAt(p []byte, off int64) (int, error) {
	r := content.Range{Off: t.extent.Off + off, End: t.extent.Off + off + int64(len(p))}
	if t.closed {
		return 0, errTrayClosed
	}
	if off < 0 || r.End > t.extent.End {
		return 0, fmt.Errorf("read %s outside of extent %s", r, t.extent)
	}
	for _, gap := range t.all.Without(r) {
		clear(p[gap.Off-r.Off : gap.End-r.Off])
	}
	for _, part := range t.all.Within(r) {
		if n, err := t.gather.get(p[part.Off-r.Off:part.End-r.Off], part); int64(n) < part.Len() {
			return int(part.Off-r.Off) + n, err
		}
	}
	return len(p), nil
}

// flush writes what has been gathered.
func (t *tray) flush() error {
	if err := t.gather.flush(); err != nil {
		return err
	}
	return t.err
}

// write hands the sink those bytes of r that it missed. A block that its hash
// refutes is no error here: it is missing again, and another Source brings it.
func (t *tray) write(p []byte, r content.Range) error {
	for _, part := range t.missing.Within(r) {
		if _, t.err = t.sink.WriteAt(p[part.Off-r.Off:part.End-r.Off], part.Off); t.err != nil {
			return t.err
		}
		err := t.sink.Accept(part)
		if errors.Is(err, content.ErrBadPiece) {
			t.bad++
			continue
		}
		if t.err = err; err != nil {
			return err
		}
	}
	return nil
}

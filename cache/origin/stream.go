package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// chunk is how much is read and written at a time, in bytes.
const chunk = 256 << 10

// errNoRanges says that a server answers a range with the whole.
var errNoRanges = errors.New("the server does not serve ranges")

// cutError is a failure after which it makes sense to ask again.
type cutError struct{ err error }

func (e *cutError) Error() string { return e.err.Error() }
func (e *cutError) Unwrap() error { return e.err }

// part is an open answer: the bytes of rng, whose End is math.MaxInt64 when the
// end will only show.
type part struct {
	body io.ReadCloser
	rng  content.Range
	size int64 // of the whole, or content.UnknownSize
}

// stream reads one answer into the sink.
type stream struct {
	part   *part // nil: still to be asked for
	ask    content.Range
	fetch  func(ctx context.Context, r content.Range) (*part, error)
	goesOn bool // it takes the place of one that was cut

	// run.mu guards what follows.
	pos   int64
	claim content.Range
	end   int64 // how far its answer reaches
}

// stream opens the stream's part if it has none, and copies it until its end,
// or until it meets what is present or another stream's. On a failure worth
// another try it returns a *cutError.
func (r *run) stream(st *stream) error {
	if st.part == nil {
		if err := r.open(st); err != nil {
			return err
		}
	}
	body := st.part.body
	defer body.Close()
	stop := context.AfterFunc(r.ctx, func() { body.Close() })
	defer stop()
	return r.copy(st)
}

// open asks for the stream's range.
func (r *run) open(st *stream) error {
	p, err := st.fetch(r.ctx, st.ask)
	if err != nil {
		return err
	}
	if err := r.agree(p.size); err != nil {
		p.body.Close()
		return err
	}
	r.mu.Lock()
	st.part, st.end = p, p.rng.End
	r.mu.Unlock()
	if st.goesOn && r.resumed != nil {
		r.resumed()
	}
	return nil
}

// agree makes sure that the size a part is of is the object's.
func (r *run) agree(size int64) error {
	known := r.sink.Size()
	switch {
	case size < 0 || size == known:
		return nil
	case known >= 0:
		return fmt.Errorf("%w: it has %d bytes instead of %d", ErrChanged, size, known)
	}
	return r.sink.SetSize(size)
}

// copy moves the bytes.
func (r *run) copy(st *stream) error {
	buf := make([]byte, chunk)
	body, rng := st.part.body, st.part.rng
	watch := time.AfterFunc(r.idle, func() { body.Close() })
	defer watch.Stop()
	for pos := rng.Off; pos < rng.End; {
		room := r.room(st)
		if room == 0 {
			return nil
		}
		watch.Reset(r.idle)
		n, err := body.Read(buf[:min(room, chunk)])
		watch.Stop()
		if n > 0 {
			if err := r.put(st, buf[:n]); err != nil {
				return err
			}
			pos += int64(n)
		}
		switch {
		case err == nil:
		case r.ctx.Err() != nil:
			return r.ctx.Err()
		case err != io.EOF:
			return &cutError{fmt.Errorf("read at byte %d: %w", pos, err)}
		case rng.End == math.MaxInt64 && r.sink.Size() < 0:
			return r.sink.SetSize(pos)
		case pos < min(rng.End, r.sink.Size()):
			return &cutError{fmt.Errorf("answer ended at byte %d of %d: %w", pos, r.sink.Size(), io.ErrUnexpectedEOF)}
		default:
			return nil
		}
	}
	return nil
}

// room is how many bytes the stream may read now. It claims the next step if it
// must; 0 if somebody else has brought or claimed what comes next.
func (r *run) room(st *stream) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st.pos == st.claim.End {
		claim, ok := r.sink.Claim(st.pos, step)
		if !ok {
			return 0
		}
		st.claim = claim
	}
	return st.claim.End - st.pos
}

// put gives bytes to the sink.
func (r *run) put(st *stream, p []byte) error {
	done := content.Range{Off: st.pos, End: st.pos + int64(len(p))}
	if _, err := r.sink.WriteAt(p, done.Off); err != nil {
		return err
	}
	if err := r.sink.Accept(done); err != nil {
		return err
	}
	r.mu.Lock()
	st.pos = done.End
	r.sink.Release(done)
	r.mu.Unlock()
	return nil
}

// askPart sends a GET for one range. With a head, only an answer from the same
// representation counts: the request gets If-Range, and what comes back must
// have the same strong validator.
func askPart(do func(*http.Request) (*http.Response, error), req *http.Request, rng content.Range, head *httpcache.Response) (*part, error) {
	req.Header.Set("Range", rangeField(rng))
	if head != nil {
		req.Header.Set("If-Range", httpcache.IfRange(head))
	}
	requested := time.Now()
	resp, err := do(req)
	if err != nil {
		var refused *RefusedError
		var down *OfflineError
		if errors.As(err, &refused) || errors.As(err, &down) || req.Context().Err() != nil {
			return nil, err
		}
		return nil, &cutError{err}
	}
	got := httpcache.NewResponse(req, resp.StatusCode, resp.Header, requested, time.Now())
	p, err := checkPart(got, rng, head)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	p.body = resp.Body
	return p, nil
}

// checkPart makes sure that an answer is the range that was asked for.
func checkPart(got *httpcache.Response, asked content.Range, head *httpcache.Response) (*part, error) {
	switch {
	case got.Status == http.StatusPartialContent:
	case got.Status == http.StatusOK && (head == nil || httpcache.Combinable(head, got)):
		return nil, errNoRanges
	case got.Status == http.StatusOK, got.Status == http.StatusRequestedRangeNotSatisfiable:
		return nil, fmt.Errorf("%w: status %d to a range", ErrChanged, got.Status)
	case got.Status == http.StatusTooManyRequests, got.Status >= 500:
		return nil, &cutError{fmt.Errorf("status %d to a range", got.Status)}
	default:
		return nil, fmt.Errorf("status %d to a range", got.Status)
	}
	whole, rng, size, err := httpcache.Whole(got)
	if err != nil {
		return nil, fmt.Errorf("range %s: %w", asked, err)
	}
	if head != nil && !httpcache.Combinable(head, whole) {
		return nil, fmt.Errorf("%w: another validator", ErrChanged)
	}
	if rng.Start != asked.Off || rng.Length > asked.Len() {
		return nil, fmt.Errorf("asked for bytes %s, got %d from byte %d", asked, rng.Length, rng.Start)
	}
	return &part{rng: content.Range{Off: rng.Start, End: rng.Start + rng.Length}, size: size}, nil
}

// rangeField is the Range field for r; an End of math.MaxInt64 leaves it open.
func rangeField(r content.Range) string {
	f := "bytes=" + strconv.FormatInt(r.Off, 10) + "-"
	if r.End == math.MaxInt64 {
		return f
	}
	return f + strconv.FormatInt(r.End-1, 10)
}

// counted is a body whose bytes are counted.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

package proxy

import (
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// forward answers a request in absolute form.
func (s *Server) forward(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		s.get(w, r, nil)
		return
	}
	q, err := s.query(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	hear := newInterim(w, r)
	a, err := s.pass(hear.context(r.Context()), r, httpcache.FwdMethod, "")
	hear.end()
	q.why = "method " + r.Method + " is for the origin (RFC 9111 §4)"
	account(r, q, a)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	head := httpcache.NewResponse(r, a.offer.Status, a.offer.Header, a.offer.Requested, a.offer.Received)
	for _, key := range httpcache.InvalidatesOn(r, head) {
		s.drop(key)
	}
	s.sendOffer(w, r, a, nil)
}

// get answers GET and HEAD for an absolute URL. edit, if not nil, has the last
// word on the header.
func (s *Server) get(w http.ResponseWriter, r *http.Request, edit func(h http.Header, info cache.Info)) {
	q, err := s.query(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if edit == nil {
		q.hear = newInterim(w, r)
	}
	for try := 0; ; try++ {
		a, err := s.resolve(r.Context(), q)
		q.hear.end()
		account(r, q, a)
		switch {
		case r.Context().Err() != nil:
			panic(http.ErrAbortHandler) // the client has left
		case err != nil:
			s.refuse(w, r, err)
			return
		case a.offer != nil:
			s.tally(r, a)
			s.sendOffer(w, r, a, edit)
			return
		}
		err = s.sendFound(w, r, a, edit)
		if err == nil {
			return
		}
		if diskFailed(err) {
			s.getPast(w, r, a, err, edit)
			return
		}
		if try > 0 { // the object may have gone or changed meanwhile: once more
			s.fail(w, r, &fault{status: http.StatusBadGateway, why: "the answer broke off: " + err.Error(), fwd: a.status.Fwd})
			return
		}
	}
}

// getPast answers from upstream what the store has and cannot read.
func (s *Server) getPast(w http.ResponseWriter, r *http.Request, a *answer, why error, edit func(http.Header, cache.Info)) {
	fwd := a.status.Fwd
	if a.status.Hit {
		fwd = httpcache.FwdMiss
	}
	past, err := s.pass(r.Context(), r, fwd, why.Error())
	accessOf(r).answer = past
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.tally(r, past)
	s.sendOffer(w, r, past, edit)
}

// open opens a reader on the body.
func (s *Server) open(f *found) (*cache.Reader, error) {
	if f.fill != nil {
		return f.fill.Reader()
	}
	return s.store.Read(f.info.Num)
}

// headPatience is how long an answer's head waits for its first byte, so that a
// fill that fails at once still gives an honest status; partPatience is that for
// what upstream is asked for on demand, which may have to be asked again.
const (
	headPatience = 2 * time.Second
	partPatience = 30 * time.Second
)

// sendFound answers from the store. An error means that nothing was sent.
func (s *Server) sendFound(w http.ResponseWriter, r *http.Request, a *answer, edit func(http.Header, cache.Info)) error {
	f := a.found
	if info, ok := s.store.Get(f.num()); ok {
		f = &found{name: f.name, head: f.head, info: info, epoch: f.epoch, fill: f.fill}
	}
	p := plan{head: httpcache.ResponseHeader(f.head, httpcache.CurrentAge(f.head, time.Now())), size: f.size()}
	if err := p.choose(r, f.head); err != nil {
		s.tally(r, a)
		maps.Copy(w.Header(), p.head)
		s.fail(w, r, err)
		return nil
	}
	var rd *cache.Reader
	if r.Method == http.MethodGet && p.hasBody() {
		var err error
		if rd, err = s.open(f); err != nil {
			return err
		}
		defer rd.Close()
		off, patience := a.expect(rd, p.expected())
		if down := s.offline(); down != nil && a.status.Fwd == httpcache.FwdPartial && patience == partPatience {
			s.tally(r, a)
			s.fail(w, r, &fault{status: http.StatusGatewayTimeout, why: down.Error() + "; only a part is here", fwd: a.status.Fwd, retry: offlineRetry, offline: down})
			return nil
		}
		if err := p.await(r.Context(), rd, r.ProtoAtLeast(1, 1), off, patience); err != nil {
			s.brokeOff(f, err)
			return err
		}
	}
	s.tally(r, a)
	h := w.Header()
	p.finish()
	maps.Copy(h, p.head)
	maps.Copy(h, a.own)
	s.addDigests(h, r, p.status, f.info)
	httpcache.AddVia(h, "HTTP/1.1", s.cfg.Name)
	a.status.AppendTo(h)
	if edit != nil {
		edit(h, f.info)
	}
	w.WriteHeader(p.status)
	if rd == nil {
		return nil
	}
	var sent int64
	err := p.send(r.Context(), w, rd, func(n int64) {
		sent += n
		s.served(r, f, n)
	})
	if err != nil {
		s.brokeOff(f, err)
		if p.goOn(s, w, r, f, sent, err) {
			return nil
		}
		panic(http.ErrAbortHandler) // a short body must not look whole
	}
	return nil
}

// plan is how a stored response answers one request: status, header and which
// bytes.
type plan struct {
	head     http.Header
	status   int
	size     int64 // of the whole body, or content.UnknownSize
	ranges   []httpcache.Range
	boundary string
	parts    [][]byte // what stands before each range of a multipart answer, and behind the last
}

// choose evaluates the request's conditions and ranges.
func (p *plan) choose(r *http.Request, head *httpcache.Response) error {
	p.status = httpcache.EvaluateConditional(r, head)
	switch p.status {
	case http.StatusNotModified:
		httpcache.NotModifiedHeader(p.head)
		return nil
	case http.StatusPreconditionFailed:
		p.head = http.Header{}
		return nil
	}
	if p.size < 0 {
		return nil // a range of what may be endless: answered with the whole
	}
	ranges, err := httpcache.Ranges(r, head, p.size)
	var bad *httpcache.RangeError
	if errors.As(err, &bad) {
		p.head = http.Header{"Content-Range": {"bytes */" + strconv.FormatInt(p.size, 10)}}
		return &fault{status: bad.Status, why: bad.Error()}
	}
	if err != nil {
		return err
	}
	if len(ranges) > 0 {
		p.status, p.ranges = http.StatusPartialContent, ranges
	}
	return nil
}

// hasBody reports whether the answer to a GET has a body to send.
func (p *plan) hasBody() bool {
	switch p.status {
	case http.StatusNotModified, http.StatusPreconditionFailed, http.StatusNoContent:
		return false
	}
	return p.size != 0
}

// await waits a little for the byte that decides, the first, and for the size where the client
// could not tell a body that was cut (HTTP/1.0 has no chunks).
func (p *plan) await(ctx context.Context, rd *cache.Reader, chunks bool, off int64, patience time.Duration) error {
	if p.size < 0 && !chunks {
		size, err := rd.Size(ctx)
		if err != nil {
			return err
		}
		p.size = size
	}
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := rd.Wait(short, off)
	if err == nil || err == io.EOF || errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil
	}
	return err
}

// finish sets the fields that depend on what is sent.
func (p *plan) finish() {
	h := p.head
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http guesses one
	}
	if p.status == http.StatusNotModified {
		return
	}
	if p.status == http.StatusPreconditionFailed {
		h.Set("Content-Length", "0")
		return
	}
	if p.status == http.StatusOK || p.status == http.StatusPartialContent {
		h.Set("Accept-Ranges", "bytes")
	}
	length := p.size
	switch len(p.ranges) {
	case 0:
	case 1:
		h.Set("Content-Range", p.ranges[0].ContentRange(p.size))
		length = p.ranges[0].Length
	default:
		length = p.multipart()
	}
	h.Del("Content-Length")
	if length >= 0 && p.status != http.StatusNoContent {
		h.Set("Content-Length", strconv.FormatInt(length, 10))
	}
}

// send sends the bytes, and tells sent of each step as it is taken.
func (p *plan) send(ctx context.Context, w http.ResponseWriter, rd *cache.Reader, sent func(int64)) error {
	switch {
	case p.size < 0:
		return stream(ctx, w, rd, content.Range{End: math.MaxInt64}, sent)
	case len(p.ranges) == 0:
		return stream(ctx, w, rd, content.Range{End: p.size}, sent)
	case len(p.ranges) == 1:
		return stream(ctx, w, rd, span(p.ranges[0]), sent)
	}
	return p.sendParts(ctx, w, rd, sent)
}

func span(r httpcache.Range) content.Range {
	return content.Range{Off: r.Start, End: r.Start + r.Length}
}

// A client that does not take a stride in stall holds room and is let go. Strides
// double while each takes less than pace; a takedown cuts at the end of one.
const (
	stall     = 5 * time.Minute
	pace      = 250 * time.Millisecond
	minStride = 4 << 20
	maxStride = 16 << 20
)

// stream sends the bytes of rng as they become readable, and flushes before it
// waits: net/http keeps small writes back. An End of math.MaxInt64 stands for
// the end that will only show.
func stream(ctx context.Context, w http.ResponseWriter, rd *cache.Reader, rng content.Range, sent func(int64)) error {
	flush := http.NewResponseController(w)
	stride := int64(minStride)
	for off := rng.Off; off < rng.End; {
		end, err := rd.Wait(ctx, off)
		if err == io.EOF && rng.End == math.MaxInt64 {
			return nil
		}
		if err != nil {
			return err
		}
		began := time.Now()
		_ = flush.SetWriteDeadline(began.Add(stall))
		n, err := rd.WriteRange(ctx, w, content.Range{Off: off, End: min(end, rng.End, off+stride)})
		sent(n)
		if err != nil {
			return err
		}
		if off += n; off == rng.End {
			break
		}
		if time.Since(began) > pace {
			stride = minStride
		} else if n == stride {
			stride = min(2*stride, maxStride)
		}
		if err := flush.Flush(); err != nil {
			return err
		}
	}
	return nil
}

package proxy

import (
	"io"
	"maps"
	"net/http"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// sendOffer passes an answer on.
func (s *Server) sendOffer(w http.ResponseWriter, r *http.Request, a *answer, edit func(http.Header, cache.Info)) {
	body := a.offer.Body
	if body == nil {
		s.fail(w, r, &fault{status: http.StatusBadGateway, why: "upstream has no way to pass the answer on", fwd: a.status.Fwd})
		return
	}
	defer body.Close()
	h := w.Header()
	maps.Copy(h, a.offer.Header.Clone())
	httpcache.StripHopByHop(h)
	httpcache.AddVia(h, "HTTP/1.1", s.cfg.Name)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http guesses one
	}
	a.status.AppendTo(h)
	if edit != nil {
		edit(h, cache.Info{})
	}
	w.WriteHeader(a.offer.Status)
	if r.Method == http.MethodHead {
		return
	}
	n, err := copyThrough(w, body)
	s.served(r, nil, n)
	if err != nil {
		if c, ok := r.Context().Value(connKey{}).(*conn); ok && !r.ProtoAtLeast(1, 1) {
			_ = c.SetLinger(0) // a reset: HTTP/1.0 has no chunks
		}
		panic(http.ErrAbortHandler) // a short body must not look whole
	}
}

// copyThrough copies a body and sends what it has whenever the next bytes are
// not there at once.
func copyThrough(w http.ResponseWriter, body io.Reader) (sent int64, err error) {
	buf := make([]byte, 64<<10)
	flush := http.NewResponseController(w)
	for {
		n, err := body.Read(buf)
		_ = flush.SetWriteDeadline(time.Now().Add(stall))
		if n > 0 {
			m, werr := w.Write(buf[:n])
			sent += int64(m)
			if werr != nil {
				return sent, werr
			}
			if n < len(buf) && err == nil {
				if err := flush.Flush(); err != nil {
					return sent, err
				}
			}
		}
		if err == io.EOF {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
	}
}

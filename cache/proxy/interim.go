package proxy

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/httpcache"
)

// interim passes interim answers, such as 103, on to the client whose request
// goes upstream (RFC 9110 §15.2). nil passes none: HTTP/1.0 knows none, and the
// addresses in those to /get/ would not lead through the box.
type interim struct {
	w http.ResponseWriter

	// mu guards what follows, and w until over.
	mu   sync.Mutex
	over bool
}

func newInterim(w http.ResponseWriter, r *http.Request) *interim {
	if !r.ProtoAtLeast(1, 1) {
		return nil
	}
	return &interim{w: w}
}

// interimPatience bounds the wait for a client that does not take an interim
// answer: others may wait for the final one.
const interimPatience = time.Second

// context is ctx for a request upstream whose interim answers are passed on.
func (i *interim) context(ctx context.Context) context.Context {
	if i == nil {
		return ctx
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: i.pass})
}

// pass sends one interim answer. 100 is left out: net/http sends its own.
func (i *interim) pass(status int, fields textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.over || status == http.StatusContinue {
		return nil
	}
	deadline := http.NewResponseController(i.w)
	_ = deadline.SetWriteDeadline(time.Now().Add(interimPatience))
	h := i.w.Header()
	maps.Copy(h, fields)
	httpcache.StripHopByHop(h)
	i.w.WriteHeader(status)
	clear(h)
	_ = deadline.SetWriteDeadline(time.Time{})
	return nil
}

// end gives the ResponseWriter back to the handler.
func (i *interim) end() {
	if i != nil {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.over = true
	}
}

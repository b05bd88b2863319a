package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// A client may take uploadGrace for the body of a request, and a second more for
// each uploadRate bytes; it may not pause for longer than stall. Only the time
// that the client takes counts, not the origin's.
const (
	uploadGrace = 30 * time.Second
	uploadRate  = 1 << 10
)

// errTrickled says that a body came too slowly.
var errTrickled = fmt.Errorf("the body of the request comes too slowly: less than %d bytes a second after %v", uploadRate, uploadGrace)

// upload is the body of a request, with a deadline: whoever sends a byte now and
// then must not hold a connection to the origin, nor one of ours.
type upload struct {
	io.ReadCloser
	conn  *conn
	got   int64
	spent time.Duration
}

// limitUpload gives the body of a request, if it has one, its deadline. It also
// holds for net/http, which reads what a handler has left.
func limitUpload(r *http.Request) {
	c, ok := r.Context().Value(connKey{}).(*conn)
	if !ok || r.Body == nil || r.Body == http.NoBody {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(uploadGrace)) // fails if it is closed
	r.Body = &upload{ReadCloser: r.Body, conn: c}
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	began := time.Now()
	left := uploadGrace + time.Duration(u.got/uploadRate)*time.Second - u.spent
	if err := u.conn.SetReadDeadline(began.Add(min(left, stall))); err != nil {
		return 0, err
	}
	n, err := u.ReadCloser.Read(p)
	u.got += int64(n)
	u.spent += time.Since(began)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errTrickled // and the deadline stays, for net/http
	case err != nil:
		_ = u.conn.SetReadDeadline(time.Time{}) // or the next request would meet it
	}
	return n, err
}

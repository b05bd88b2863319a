package proxy

import (
	"io"
	"os"
)

// ReadFrom implements io.ReaderFrom: net/http sends bodies with it. Of a part of a
// file (sendfile) only full packets leave until its end.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	part, ok := r.(*io.LimitedReader)
	if ok {
		_, ok = part.R.(*os.File) // else its next bytes may be long in coming
	}
	if ok && part.N > copied {
		c.cork(1)
		defer c.cork(0)
	}
	return c.TCPConn.ReadFrom(r)
}

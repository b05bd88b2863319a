package proxy

import (
	"io"
	"math/bits"
	"net"
	"os"
	"sync/atomic"
)

// listenConfig makes sockets for clients. With Multipath TCP, which net would
// listen for, options set here do not reach the connections.
func listenConfig() net.ListenConfig {
	lc := net.ListenConfig{Control: limitUnsent}
	lc.SetMultipathTCP(false)
	return lc
}

// unsent shares out what may wait in sockets to be sent. A kernel lets each have
// megabytes; hundreds of clients that are slower than the box then use up its
// memory for TCP, at which it shrinks everybody's windows to next to nothing. Safe
// for concurrent use.
type unsent struct {
	budget int64 // in bytes
	bodies atomic.Int64
}

// The share of a connection, in bytes.
const (
	minShare = 128 << 10 // and that of all but bodies from files
	maxShare = 4 << 20
)

// maxUnsent bounds the budget, in bytes.
const maxUnsent = 64 << 20

// share is that of each of n bodies: a power of two, so that it seldom changes.
func (u *unsent) share(n int64) int64 {
	each := max(u.budget/n, minShare)
	return min(int64(1)<<(bits.Len64(uint64(each))-1), maxShare)
}

// ReadFrom implements io.ReaderFrom: net/http sends bodies with it. Of a part of a
// file (sendfile) only full packets leave until its end.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	part, ok := r.(*io.LimitedReader)
	if ok {
		_, ok = part.R.(*os.File) // else its next bytes may be long in coming
	}
	if ok && part.N > copied {
		if share := c.unsent.share(c.unsent.bodies.Add(1)); share != c.share {
			c.share = share
			c.setUnsent(share)
		}
		defer c.unsent.bodies.Add(-1)
		c.cork(1)
		defer c.cork(0)
	}
	return c.TCPConn.ReadFrom(r)
}

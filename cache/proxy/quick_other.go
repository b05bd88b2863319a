//go:build !unix

package proxy

// socket is nothing here: a connection that waits holds its buffer.
type socket struct{}

func (q *quick) open() error { return nil }

// next waits for bytes and reads them.
func (q *quick) next() (err error) {
	q.work = q.server.scratch.Get().(*scratch)
	q.work.used, err = q.tcp.Read(q.work.in[:])
	return err
}

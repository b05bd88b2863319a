package multicast

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/cistern-edge/cistern/multicast/norm"
)

// answerer sends what a norm.Receiver has to say: to the group, or where the
// engine tells.
type answerer struct {
	engine *norm.Receiver
	conn   conn
	group  netip.AddrPort
	buf    []byte
}

// send sends what is due.
func (a *answerer) send(now time.Time) error {
	for {
		b, to := a.engine.Poll(now, a.buf[:0])
		if len(b) == 0 {
			return nil
		}
		a.buf = b
		if !to.IsValid() {
			to = a.group
		}
		if err := a.conn.send([][]byte{b}, to); err != nil {
			return fmt.Errorf("send feedback: %w", err)
		}
	}
}

package proxy

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

func TestShareOfWhatWaitsInSockets(t *testing.T) {
	u := &unsent{budget: 16 << 20}
	for _, c := range []struct{ bodies, share int64 }{
		{1, maxShare}, {4, maxShare}, {5, 2 << 20}, {16, 1 << 20}, {100, 128 << 10}, {100_000, minShare},
	} {
		if got := u.share(c.bodies); got != c.share {
			t.Errorf("%d bodies: %d bytes each, want %d", c.bodies, got, c.share)
		}
	}
	if b := unsentBudget(); b < minShare || b > maxUnsent {
		t.Errorf("the budget is %d bytes", b)
	}
}

// TestConnectionsHaveALimit: options of a listener reach its connections.
func TestConnectionsHaveALimit(t *testing.T) {
	lc := listenConfig()
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	c := &conn{TCPConn: accepted.(*net.TCPConn)}
	for _, want := range []int{minShare, maxShare} {
		if want == maxShare {
			c.setUnsent(maxShare)
		}
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got int
		if cerr := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		if got != want {
			t.Errorf("%d bytes may wait, want %d", got, want)
		}
	}
}

package origin

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// fickle is a DNS server: its nth answer for A has the addresses of the nth row,
// from the first one on once more when they are used up.
func fickle(t *testing.T, rows [][]string) *net.Resolver {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for asked := 0; ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			if q.Type == dnsmessage.TypeA {
				for _, text := range rows[asked%len(rows)] {
					head := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: [4]byte(net.ParseIP(text).To4())}})
				}
				asked++
			}
			if out, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// TestRebinding: a name whose address changes between any check and the connect,
// and one that has an open address and a closed one at once. Nothing inside is
// reached; the open address, that of nobody, may be.
func TestRebinding(t *testing.T) {
	inside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var reached atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := inside.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(inside.Addr().String())
	const open = "203.0.113.77"
	for name, rows := range map[string][][]string{
		"open, then loopback":       {{open}, {"127.0.0.1"}},
		"loopback, then open":       {{"127.0.0.1"}, {open}},
		"both at once":              {{open, "127.0.0.1"}},
		"both, the other way round": {{"127.0.0.1", open}},
		"open, then private":        {{open}, {"10.0.0.1"}, {"169.254.169.254"}, {"192.168.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			var refused *RefusedError
			refusals := 0
			d := &Dialer{Timeout: 150 * time.Millisecond, resolver: fickle(t, rows)}
			for range 2 * len(rows) {
				conn, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort("rebound.example", port))
				if err == nil {
					if !strings.HasPrefix(conn.RemoteAddr().String(), open) {
						t.Errorf("connected to %s", conn.RemoteAddr())
					}
					conn.Close()
				}
				if errors.As(err, &refused) {
					refusals++
				}
			}
			if refusals == 0 && len(rows) > 1 {
				t.Error("no answer was refused: the story did not happen")
			}
		})
	}
	inside.Close()
	<-done
	if n := reached.Load(); n > 0 {
		t.Errorf("%d connections came through", n)
	}
}

package origin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// world is a network in memory: whom it does not know does not answer.
type world struct {
	mu    sync.Mutex
	hosts map[string]string // by the host's name its address
	dials map[string]int
}

func (w *world) set(hosts map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts = hosts
}

func (w *world) dialed(host string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials[host]
}

func (w *world) dial(ctx context.Context, _, host string) (net.Conn, error) {
	w.mu.Lock()
	at, ok := w.hosts[host]
	w.dials[host]++
	w.mu.Unlock()
	switch {
	case !ok:
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
	case strings.HasPrefix(at, "refused "):
		addr := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(strings.TrimPrefix(at, "refused ")))
		return nil, &net.OpError{Op: "dial", Addr: addr, Err: syscall.ECONNREFUSED}
	}
	return farConn{at: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(at))}, nil
}

type farConn struct {
	net.Conn
	at net.Addr
}

func (c farConn) RemoteAddr() net.Addr { return c.at }
func (c farConn) Close() error         { return nil }

// inWorld runs a story with an Uplink in a world, in time that does not pass by
// itself.
func inWorld(t *testing.T, mode string, story func(t *testing.T, w *world, u *Uplink, dial func(host string) (time.Duration, error))) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{dials: map[string]int{}}
		u := NewUplink(mode, &Dialer{}, netip.Addr.IsPrivate, slog.New(slog.DiscardHandler))
		u.dial = w.dial
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { _ = u.Run(ctx) })
		defer done.Wait()
		defer cancel()
		story(t, w, u, func(host string) (time.Duration, error) {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := u.DialContext(ctx, "tcp", host)
			return time.Since(began), err
		})
	})
}

func isOffline(err error) bool {
	var down *OfflineError
	return errors.As(err, &down)
}

func TestUplinkFallsAndReturns(t *testing.T) {
	inWorld(t, OfflineAuto, func(t *testing.T, w *world, u *Uplink, dial func(string) (time.Duration, error)) {
		up := map[string]string{"a:80": "203.0.113.1:80", "b:80": "203.0.113.2:80", "lan:80": "10.0.0.9:80"}
		w.set(up)
		for host := range up {
			if _, err := dial(host); err != nil {
				t.Fatal(err)
			}
		}
		w.set(map[string]string{"lan:80": "10.0.0.9:80"}) // the cable is cut
		took, err := dial("a:80")
		if !isOffline(err) || took > suspectDial+trial {
			t.Errorf("the first request after the cut: %v after %s", err, took)
		}
		if took, err := dial("a:80"); !isOffline(err) || took != 0 {
			t.Errorf("the next: %v after %s, want it at once", err, took)
		}
		if took, err := dial("lan:80"); err != nil || took != 0 {
			t.Errorf("a host of the LAN: %v after %s", err, took)
		}
		if u.Down() == nil {
			t.Error("a host of the LAN counts as the outside")
		}
		if took, err := dial("new:80"); !isOffline(err) || took != trial {
			t.Errorf("a host that was not heard of: %v after %s, want a trial", err, took)
		}
		if took, err := dial("new:80"); !isOffline(err) || took != 0 {
			t.Errorf("that host again: %v after %s, want it at once", err, took)
		}
		since := u.Down().Since
		time.Sleep(time.Hour)
		if down := u.Down(); down == nil || down.Since != since {
			t.Errorf("after an hour: %v", down)
		}
		if n := w.dialed("lan:80"); n != 2 {
			t.Errorf("the LAN was probed: %d connections", n)
		}
		w.set(up)
		time.Sleep(probeMax + trial)
		if took, err := dial("a:80"); err != nil || took != 0 {
			t.Errorf("after its return: %v after %s", err, took)
		}
		if s := u.Stats(); s.Down != 0 || s.Falls != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestOneDeadHostIsNotTheUplink: neither one that is silent, nor one that refuses,
// nor one of the LAN.
func TestOneDeadHostIsNotTheUplink(t *testing.T) {
	inWorld(t, OfflineAuto, func(t *testing.T, w *world, u *Uplink, dial func(string) (time.Duration, error)) {
		w.set(map[string]string{"a:80": "203.0.113.1:80", "shut:80": "refused 203.0.113.3:80", "lan:80": "refused 10.0.0.1:80"})
		for _, host := range []string{"a:80", "dead:80", "shut:80", "lan:80", "dead:80"} {
			_, err := dial(host)
			if isOffline(err) || u.Down() != nil {
				t.Errorf("%s: %v, %v", host, err, u.Down())
			}
		}
	})
}

// TestAnotherHostBringsItUp: at the first start there is one dead host to judge
// by; whoever asks for another one finds that it answers.
func TestAnotherHostBringsItUp(t *testing.T) {
	inWorld(t, OfflineAuto, func(t *testing.T, w *world, u *Uplink, dial func(string) (time.Duration, error)) {
		w.set(map[string]string{"a:80": "203.0.113.1:80"})
		if _, err := dial("dead:80"); !isOffline(err) {
			t.Errorf("the only host ever asked: %v", err)
		}
		if took, err := dial("a:80"); err != nil || took != 0 || u.Down() != nil {
			t.Errorf("another host: %v after %s, %v", err, took, u.Down())
		}
	})
}

func TestUplinkModes(t *testing.T) {
	inWorld(t, OfflineOff, func(t *testing.T, w *world, u *Uplink, dial func(string) (time.Duration, error)) {
		for range 3 {
			if took, err := dial("dead:80"); isOffline(err) || took != 10*time.Second {
				t.Errorf("off: %v after %s", err, took)
			}
		}
	})
	near := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer near.Close()
	open, err := ParseDestination("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	u := NewUplink(OfflineOn, &Dialer{Allow: []Destination{open}}, netip.Addr.IsLoopback, slog.New(slog.DiscardHandler))
	if _, err := u.DialContext(t.Context(), "tcp", "203.0.113.1:80"); !isOffline(err) {
		t.Errorf("on: %v", err)
	}
	conn, err := u.DialContext(t.Context(), "tcp", near.Listener.Addr().String())
	if err != nil {
		t.Fatalf("on, a host of the LAN: %v", err)
	}
	conn.Close()
	if u.Down() == nil {
		t.Error("on, and yet up")
	}
}

// TestHeadIsNotWaitedForOffline: an answer whose head does not come ends with the
// uplink, and a fill waits for its return.
func TestHeadIsNotWaitedForOffline(t *testing.T) {
	silent := make(chan struct{})
	s := newSite(t, testBody(1000), func(_ http.ResponseWriter, _ *http.Request, n int) bool {
		if n == 1 {
			<-silent
		}
		return false
	})
	defer close(silent)
	u := NewUplink(OfflineAuto, &Dialer{}, func(netip.Addr) bool { return false }, slog.New(slog.DiscardHandler))
	u.dial = (&net.Dialer{}).DialContext
	m, err := NewMirrors(Config{Dial: u.DialContext, Uplink: u}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := m.Open(t.Context(), req)
		failed <- err
	}()
	for len(s.ranges()) == 0 {
		time.Sleep(time.Millisecond)
	}
	u.suspect(s.Listener.Addr().String())
	u.mu.Lock()
	u.down = &OfflineError{Since: time.Now(), Why: "the cable was cut"}
	u.fall(u.down)
	u.mu.Unlock()
	if err := <-failed; !isOffline(err) {
		t.Errorf("the request that waited for its head: %v", err)
	}
	if _, err := m.Open(t.Context(), req); !isOffline(err) {
		t.Errorf("the next: %v", err)
	}
	if open, _, _ := m.gate.figures(); open != 0 {
		t.Errorf("%d places are taken", open)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		u.answered(s.Listener.Addr().String(), s.Listener.Addr())
	}()
	resp, err := m.sendPart(req.Clone(t.Context()))
	if err != nil {
		t.Fatalf("the fill: %v", err)
	}
	resp.Body.Close()
}

package steer

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// noTracker answers nothing.
type noTracker struct{}

func (noTracker) Infohashes() [][20]byte                              { return nil }
func (noTracker) AnswerHTTP(netip.Addr, *http.Request) ([]byte, bool) { return nil, false }

func (noTracker) AnswerUDP(_, _ netip.AddrPort, _ []byte) ([]byte, bool) { return nil, false }

func (noTracker) AnswerDHT(netip.AddrPort, []byte) (func([]byte) []byte, bool) { return nil, false }
func (noTracker) Outside() []netip.AddrPort                                    { return nil }
func (noTracker) Inside() []Peer                                               { return nil }

// carried hands connections to a server behind another listener, as long as it is
// well.
type carried struct {
	to   string
	well atomic.Bool
}

func (w *carried) Take(c *net.TCPConn, head []byte) {
	if !w.well.Load() {
		return // it hangs
	}
	defer c.Close()
	up, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer up.Close()
	_, _ = up.Write(head)
	go func() { _, _ = io.Copy(up, c) }()
	_, _ = io.Copy(c, up)
}

// TestWebThatHangsIsLeft: port 80 is taken only while what takes it answers.
func TestWebThatHangsIsLeft(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(server.Close)
	web := &carried{to: strings.TrimPrefix(server.URL, "http://")}
	cfg := Config{Mode: Intercept, Interfaces: []string{"lan"}, Web: true}
	s, err := New(cfg, slog.New(slog.DiscardHandler), noTracker{}, noTracker{}, noTracker{}, web)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.accept(t.Context(), l.(*net.TCPListener)) }()
	t.Cleanup(func() { l.Close(); <-ended; s.tasks.Wait() })
	takes80 := func() bool {
		return slices.Contains(s.contents(time.Now(), newWards(), newEndpoints()).ports, 80)
	}
	if takes80() {
		t.Error("port 80 is taken before the proxy has answered")
	}
	for _, well := range []bool{true, false, true} {
		web.well.Store(well)
		patience := time.Minute
		if !well {
			patience = 50 * time.Millisecond
		}
		err := askWeb(t.Context(), l.Addr().String(), patience)
		if (err == nil) != well {
			t.Errorf("well %t: %v", well, err)
		}
		s.webWell.Store(err == nil)
		if takes80() != well {
			t.Errorf("well %t, port 80 taken: %t", well, !well)
		}
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("the proxy's handler saw %d of the questions", n)
	}
	// Announces need no proxy.
	cfg.Web = false
	if s, err = New(cfg, slog.New(slog.DiscardHandler), noTracker{}, noTracker{}, noTracker{}, nil); err != nil || !takes80() {
		t.Errorf("without the proxy port 80 is not taken: %v", err)
	}
}

func TestWebAnswers(t *testing.T) {
	for answer, well := range map[string]bool{
		"HTTP/1.1 400 Bad Request\r\n\r\n": true, "HTTP/1.1 503 Service Unavailable\r\n\r\n": false, "SSH-2.0-x\r\n": false, "": false,
		strings.Repeat("x", 8192): false,
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				_, _ = io.ReadFull(c, make([]byte, len(webHello)))
				_, _ = io.WriteString(c, answer)
				_ = c.Close()
			}
		}()
		if err := askWeb(t.Context(), l.Addr().String(), time.Minute); (err == nil) != well {
			t.Errorf("%.20q: %v", answer, err)
		}
		l.Close()
	}
}

package multicast

import (
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/multicast/announce"
)

// loopback is the interface that real packets go over. Linux joins groups on it
// although it does not call itself fit for multicast.
func loopback(t *testing.T) string {
	t.Helper()
	ifaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifaces {
		if i.Flags&net.FlagLoopback != 0 && i.Flags&net.FlagUp != 0 {
			return i.Name
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("there is no loopback interface that is up")
	}
	t.Skip("there is no loopback interface that is up")
	return ""
}

// TestKernelSockets casts over the kernel's sockets, TLS and all, in both modes.
func TestKernelSockets(t *testing.T) {
	t.Parallel() // it runs in real time and mostly waits
	for _, c := range []struct {
		name string
		cfg  CasterConfig
	}{
		{"ssm", CasterConfig{Mode: SSM, Groups: netip.MustParsePrefix("232.78.0.0/16")}},
		{"asm", CasterConfig{Mode: ASM, Groups: netip.MustParsePrefix("239.78.0.0/16")}},
		{"offload", CasterConfig{Mode: SSM, Groups: netip.MustParsePrefix("232.79.0.0/16"), Offload: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := noise(3, 3<<20+12345)
			store := openStore(t)
			info := keep(t, store, "http://origin/file", data, true)
			c.cfg.Interfaces = []string{loopback(t)}
			c.cfg.Port = freePort(t)
			c.cfg.Rate = 200e6
			b := &box{t: t, store: store, found: map[string]Found{}}
			b.offer("http://origin/file", info)
			url := startKernelBox(t, b, c.cfg)
			var agents []*agent
			for _, name := range []string{"anna", "ben"} {
				agents = append(agents, kernelAgent(t, b, url, name, data))
			}
			var wg sync.WaitGroup
			for _, a := range agents {
				wg.Go(func() {
					sink, offer, err := a.get("http://origin/file")
					if err != nil {
						t.Error(err)
						return
					}
					if offer.Object.ID != info.ID || len(offer.Sources) != 2 {
						t.Errorf("offer of %s with %d sources, want a cast of %s", offer.Object.ID, len(offer.Sources), info.ID)
					}
					whole(t, sink, data)
				})
			}
			wg.Wait()
			for i, a := range agents {
				if st := a.catcher.Stats(); st.Joined != 1 || st.Bytes == 0 {
					t.Errorf("agent %d did not receive by multicast: %+v, %d bytes by HTTP", i, st, a.repair.Load())
				}
			}
		})
	}
}

// freePort is a UDP port that nobody uses.
func freePort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// startKernelBox gives b its parts, over the kernel's network, and serves its
// desk over TLS. It returns the URL to enrol at.
func startKernelBox(t *testing.T, b *box, cfg CasterConfig) string {
	t.Helper()
	dir := t.TempDir()
	var err error
	if b.key, err = announce.LoadOrCreate(filepath.Join(dir, "box.key")); err != nil {
		t.Fatal(err)
	}
	if b.roster, err = OpenRoster(filepath.Join(dir, "agents.json")); err != nil {
		t.Fatal(err)
	}
	if b.caster, err = NewCaster(cfg, b.key, b.store, b.roster, testLog()); err != nil {
		t.Fatal(err)
	}
	if b.desk, err = NewDesk(DeskConfig{}, b.key, b.roster, b.store, b, b.caster, testLog()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(b.desk)
	cert, err := b.key.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = serverTLS(cert)
	server.StartTLS()
	t.Cleanup(server.Close)
	run(t, b.caster.Run)
	began(&b.caster.mu, &b.caster.ctx)
	return "http" + strings.TrimPrefix(server.URL, "https")
}

// kernelAgent enrols an agent over TLS and runs it.
func kernelAgent(t *testing.T, b *box, url, name string, data []byte) *agent {
	t.Helper()
	state := filepath.Join(t.TempDir(), "state.json")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := Enrol(ctx, url, b.key.Fingerprint(), name, state); err != nil {
		t.Fatal(err)
	}
	a := &agent{}
	var err error
	if a.line, err = OpenLine(state); err != nil {
		t.Fatal(err)
	}
	if a.catcher, err = NewCatcher(CatcherConfig{}, a.line, testLog()); err != nil {
		t.Fatal(err)
	}
	a.member = NewMember(a.line, a.catcher, func(content.ID) content.Source { return given{data: data, bytes: &a.repair} }, testLog())
	run(t, a.catcher.Run)
	began(&a.catcher.mu, &a.catcher.ctx)
	return a
}

// TestKernelCountsDrops fills a small buffer until the kernel drops packets.
func TestKernelCountsDrops(t *testing.T) {
	lo := loopback(t)
	group := netip.AddrPortFrom(netip.MustParseAddr("239.78.9.9"), freePort(t))
	rx, err := kernel{}.join(lo, group, nil, socketOptions{buffer: 4096})
	if err != nil {
		t.Fatal(err)
	}
	defer rx.close()
	tx, err := kernel{}.transmit(lo, group.Addr(), socketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.close()
	const sent = 400
	for range sent {
		if err := tx.send([][]byte{make([]byte, 1000)}, group); err != nil {
			t.Fatal(err)
		}
	}
	b := newBatch(sent)
	if err := rx.receive(b); err != nil {
		t.Fatal(err)
	}
	got, from := len(b.packets), b.packets[0].from
	// The count comes with a packet that arrives after the loss.
	if err := tx.send([][]byte{make([]byte, 1000)}, group); err != nil {
		t.Fatal(err)
	}
	if err := rx.receive(b); err != nil {
		t.Fatal(err)
	}
	if drops := rx.dropped(); int(drops)+got+len(b.packets) != sent+1 || drops == 0 {
		t.Errorf("%d and %d of %d packets arrived, %d were counted as dropped", got, len(b.packets), sent+1, drops)
	}
	if from != tx.local() {
		t.Errorf("a packet came from %s, was sent from %s", from, tx.local())
	}
}

// TestClosedSocketWakesItsReader closes a socket while one goroutine waits for
// packets and another one sends.
func TestClosedSocketWakesItsReader(t *testing.T) {
	group := netip.AddrPortFrom(netip.MustParseAddr("239.78.9.10"), freePort(t))
	c, err := kernel{}.transmit(loopback(t), group.Addr(), socketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { ended <- c.receive(newBatch(1)) }()
	go func() {
		for {
			if err := c.send([][]byte{{1}}, group); err != nil {
				ended <- err
				return
			}
		}
	}()
	if err := c.close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed socket says %v", err)
		}
	}
	if err := c.close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closing it again says %v", err)
	}
}

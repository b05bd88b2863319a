package hwtest

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// How the test's own clients are told from the box.
const (
	clientID          = "-XX0000-000000000000"
	clientTransaction = 7
)

// outsideTracker is a tracker in the world that answers everything, and says with
// what and whom it was asked: HTTP on ports 80 and 6969, UDP on 6969, TLS
// (something that begins like it) on 443, and a node of the DHT on 6881.
type outsideTracker struct {
	mu    sync.Mutex // guards what follows
	asked []string
}

func (o *outsideTracker) note(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, what)
}

// since gives what it was asked, and forgets it.
func (o *outsideTracker) since() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := strings.Join(o.asked, " ")
	o.asked = nil
	return text
}

func (o *outsideTracker) start(t *testing.T, world *lab.Host, addr string) {
	t.Helper()
	for _, port := range []string{"80", "6969"} {
		l, err := world.Listen("tcp", net.JoinHostPort(addr, port))
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			if r.URL.Query().Get("peer_id") == clientID { // not the box, for itself
				o.note(host + r.URL.Path)
			}
			w.Header()["Date"] = nil
			fmt.Fprintf(w, "d8:intervali60e5:peers0:e")
		})}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { _ = server.Close() })
	}
	tls, err := world.Listen("tcp", net.JoinHostPort(addr, "443"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tls.Close() })
	go func() {
		for {
			c, err := tls.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "\x16\x03\x03")
			c.Close()
		}
	}()
	o.serve(t, world, net.JoinHostPort(addr, "6969"), func(host string, q []byte) []byte {
		if q[15] == clientTransaction {
			o.note(fmt.Sprintf("%s udp %d", host, q[11]))
		}
		return append([]byte{0, 0, 0, q[11]}, q[12:16]...)
	})
	o.serve(t, world, net.JoinHostPort(addr, "6881"), func(host string, q []byte) []byte {
		o.note(fmt.Sprintf("%s %q", host, q))
		return []byte("d1:rd2:id20:" + strings.Repeat("m", 20) + "6:valuesl6:" + dhtPeer + "ee1:t2:xy1:y1:re")
	})
}

// dhtPeer is whom the node names.
const dhtPeer = "peer:1"

// serve answers datagrams.
func (o *outsideTracker) serve(t *testing.T, world *lab.Host, addr string, answer func(host string, q []byte) []byte) {
	pc, err := world.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		for buf := make([]byte, 2048); ; {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(from.String())
			_, _ = pc.WriteTo(answer(host, buf[:max(n, 16)]), from)
		}
	}()
}

// lookUp asks a node of the DHT for the peers of a torrent (BEP 5).
func lookUp(t *testing.T, client *lab.Host, node string, infohash [20]byte) string {
	t.Helper()
	c, err := client.Dial("udp", node)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := "d1:ad2:id20:" + strings.Repeat("c", 20) + "9:info_hash20:" + string(infohash[:]) + "e1:q9:get_peers1:t2:xy1:y1:qe"
	return askPacket(c, []byte(q))
}

// askPacket sends a datagram until something comes back.
func askPacket(c net.Conn, q []byte) string {
	answer := make([]byte, 300)
	n := 0
	for tries := 0; n == 0 && tries < 5; tries++ {
		_, _ = c.Write(q)
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
		n, _ = c.Read(answer)
	}
	return string(answer[:n])
}

// askHTTP asks the tracker as a client does, and gives the answer as it came.
func askHTTP(t *testing.T, client *lab.Host, host, target string) string {
	t.Helper()
	return askSoon(client, host, target, 10*time.Second)
}

// askSoon gives up after a while.
func askSoon(client *lab.Host, host, target string, within time.Duration) string {
	c, err := client.Dial("tcp", host)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(within))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", target, host)
	answer, _ := io.ReadAll(c) // a reset is an answer too
	return string(answer)
}

// askUDP connects and announces (BEP 15) by one socket, and gives both answers.
func askUDP(t *testing.T, client *lab.Host, tracker string, infohash [20]byte, options string) string {
	t.Helper()
	c, err := client.Dial("udp", tracker)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hello := append(binary.BigEndian.AppendUint64(nil, 0x41727101980), 0, 0, 0, 0, 0, 0, 0, clientTransaction)
	announce := append(binary.BigEndian.AppendUint64(nil, 9), 0, 0, 0, 1, 0, 0, 0, clientTransaction)
	announce = append(append(append(announce, infohash[:]...), make([]byte, 62)...), options...)
	return fmt.Sprintf("%x", askPacket(c, hello)+askPacket(c, announce))
}

// TestUntouched: behind the box, an announce of a torrent that it is told of is
// answered by it, and every other one is asked and answered exactly as without
// it. It is gone from the way as soon as it is gone.
func TestUntouched(t *testing.T) {
	if _, err := os.Stat(filepath.Join(bin, "cisternd")); err != nil {
		t.Fatalf("the box is not built (make build): %v", err)
	}
	dir := t.TempDir()
	l := lab.Test(t)
	wan, lan := l.Switch("wan", lab.SwitchConfig{}), l.Switch("lan", lab.SwitchConfig{Gateways: []string{"10.0.0.1", "fd00::1"}})
	world, client, router := l.Host("world"), l.Host("client"), l.Router("router")
	world.Join(wan, lab.LinkConfig{Addrs: []string{"203.0.113.10/24", "2001:db8::10/64"}})
	router.Join(lan, lab.LinkConfig{Addrs: []string{"10.0.0.1/24", "fd00::1/64"}})
	router.Masquerade(router.Join(wan, lab.LinkConfig{Addrs: []string{"203.0.113.1/24", "2001:db8::1/64"}}))
	client.Join(lan, lab.LinkConfig{Addrs: []string{"10.0.0.9/24", "fd00::9/64"}})
	if err := l.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	trackers := map[string]*outsideTracker{"203.0.113.10": {}, "2001:db8::10": {}}
	for addr, o := range trackers {
		o.start(t, world, addr)
	}

	info := fmt.Sprintf("d6:lengthi5e4:name1:p12:piece lengthi16384e6:pieces20:%s7:privatei1ee", strings.Repeat("x", 20))
	private, allowed, strange := sha1.Sum([]byte(info)), [20]byte(bytes.Repeat([]byte{0xa1}, 20)), [20]byte(bytes.Repeat([]byte{0x55}, 20))
	write(t, filepath.Join(dir, "private.torrent"), []byte("d8:announce30:http://203.0.113.10:9/announce4:info"+info+"e"))
	query := func(path string, h [20]byte, more string) string {
		return path + "?info_hash=" + url.QueryEscape(string(h[:])) + "&peer_id=" + clientID + "&port=51413&left=9" + more
	}
	cases := []struct {
		name  string
		boxes bool // the box answers
		ask   func(addr string) string
	}{
		{"allowed, port 80", true, func(a string) string {
			return askHTTP(t, client, net.JoinHostPort(a, "80"), query("/announce", allowed, ""))
		}},
		{"allowed, port 6969", true, func(a string) string {
			return askHTTP(t, client, net.JoinHostPort(a, "6969"), query("/announce", allowed, ""))
		}},
		{"allowed, UDP", true, func(a string) string { return askUDP(t, client, net.JoinHostPort(a, "6969"), allowed, "") }},
		{"not allowed", false, func(a string) string {
			return askHTTP(t, client, net.JoinHostPort(a, "80"), query("/announce", strange, ""))
		}},
		{"not allowed, UDP", false, func(a string) string { return askUDP(t, client, net.JoinHostPort(a, "6969"), strange, "") }},
		{"private", false, func(a string) string {
			return askHTTP(t, client, net.JoinHostPort(a, "6969"), query("/announce", private, ""))
		}},
		{"private, UDP", false, func(a string) string { return askUDP(t, client, net.JoinHostPort(a, "6969"), private, "") }},
		{"passkey in the path", false, func(a string) string {
			return askHTTP(t, client, net.JoinHostPort(a, "80"), query("/0123456789abcdef/announce", allowed, ""))
		}},
		{"passkey in the query", false, func(a string) string {
			return askHTTP(t, client, net.JoinHostPort(a, "6969"), query("/announce", allowed, "&passkey=1"))
		}},
		{"passkey, UDP", false, func(a string) string {
			return askUDP(t, client, net.JoinHostPort(a, "6969"), allowed, "\x02\x0a/0123/ann?")
		}},
		{"scrape", false, func(a string) string {
			return askHTTP(t, client, net.JoinHostPort(a, "80"), query("/scrape", allowed, ""))
		}},
		{"not allowed, DHT", false, func(a string) string { return lookUp(t, client, net.JoinHostPort(a, "6881"), strange) }},
		{"private, DHT", false, func(a string) string { return lookUp(t, client, net.JoinHostPort(a, "6881"), private) }},
		{"HTTPS", false, func(a string) string {
			return askHTTP(t, client, net.JoinHostPort(a, "443"), query("/announce", allowed, ""))
		}},
	}
	type seen struct{ answer, asked string }
	play := func() map[string]seen {
		all := map[string]seen{}
		for addr, o := range trackers {
			for _, c := range cases {
				all[c.name+" "+addr] = seen{c.ask(addr), o.since()}
			}
		}
		return all
	}
	without := play()

	box, err := actors.StartBox(t.Context(), router.Host, bin, filepath.Join(dir, "box"), fmt.Sprintf(`version = 1
[proxy]
listen = "10.0.0.1:%s"
[multicast]
interfaces = []
[peering]
listen = ":6881"
[tracker]
allow = ["%x"]
[steer]
mode = "intercept"
interfaces = ["eth0"]
web = true
`, actors.ProxyPort, allowed))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := box.Command(t.Context(), "add", filepath.Join(dir, "private.torrent")); err != nil {
		t.Fatal(err)
	}
	page := func() string { return askHTTP(t, client, "203.0.113.10:80", "/page") }
	waitFor(t, "the way through the box", func() bool { return strings.Contains(page(), "Cache-Status: cistern") })
	for _, o := range trackers {
		o.since()
	}
	with := play()
	same := 0
	for addr := range trackers {
		for _, c := range cases {
			name := c.name + " " + addr
			was, is := without[name], with[name]
			if c.boxes {
				peer := map[bool]string{true: "0a0000011ae1", false: "fd0000000000000000000000000000011ae1"}[addr[0] == '2' && addr[3] == '.']
				if raw := fmt.Sprintf("%x", is.answer); !strings.Contains(is.answer+raw, peer) || strings.Contains(is.asked, "announce") || strings.Contains(is.asked, "udp 1") {
					t.Errorf("%s: the box did not answer: %q, the tracker was asked %q", name, is.answer, is.asked)
				}
				continue
			}
			if was != is {
				t.Errorf("%s: without the box %q, behind it %q", name, was, is)
				continue
			}
			same++
		}
	}
	figure(t, "untouched: announces of no concern that went another way", float64(2*11-same), 0, "announces")
	for addr := range trackers { // the announces above made the box join
		node := net.JoinHostPort(addr, "6881")
		waitFor(t, "the box as the peer that a node names", func() bool {
			answer := lookUp(t, client, node, allowed)
			return strings.HasSuffix(answer, "e1:t2:xy1:y1:re") && strings.Contains(answer, "\x1a\xe1e") && !strings.Contains(answer, dhtPeer)
		})
	}
	const many = 200
	for addr, o := range trackers {
		for range many {
			askUDP(t, client, net.JoinHostPort(addr, "6969"), allowed, "\x02\x0a/0123/ann?")
		}
		again := strings.Count(o.since(), "udp 1") - many
		figure(t, "untouched: announces sent on whose answer was lost, "+addr, float64(again), many/100, "announces")
	}

	// Out of the way: hung, and killed.
	direct := func() bool {
		answer := askSoon(client, "203.0.113.10:80", "/page", 300*time.Millisecond)
		return strings.Contains(answer, "d8:interval") && !strings.Contains(answer, "Cache-Status")
	}
	hung := time.Now()
	if err := box.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the way past a box that hangs", direct)
	t.Logf("figure: untouched: a box that hangs is out of the way after: %.3g s (bound 6): %s", time.Since(hung).Seconds(), verdict(time.Since(hung) < 6*time.Second))
	if err := box.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the way through the box again", func() bool { return strings.Contains(page(), "Cache-Status: cistern") })
	if err := box.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	waitFor(t, "the way past a box that was killed", direct)
	t.Logf("figure: untouched: a box that was killed is out of the way after: %.3g s (bound 1): %s", time.Since(killed).Seconds(), verdict(time.Since(killed) < time.Second))
}

func verdict(ok bool) string {
	if ok {
		return "ok"
	}
	return "short"
}

package peering

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/anacrolix/dht/v2"
	utp "github.com/anacrolix/go-utp"
	"github.com/anacrolix/torrent"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// network is the sockets of the client and the rules for using them: each
// connection, in or out, TCP or uTP, comes by here.
type network struct {
	swarm *Swarm
	addr  netip.AddrPort
	tcp   net.Listener
	utp   utp.Socket
	dht   *dht.Server   // nil if the DHT is off
	limit *rate.Limiter // of what the outside gets; pace sets it
	open  chan struct{} // closed when connections may come in

	lanLimit *rate.Limiter // of what the LAN gets; nil for none
	halfOpen chan struct{} // one token for each dial to the outside under way
}

// dialWait is how long a TCP connection may take before uTP is tried beside
// it, utpTime how long uTP may, and dialTime how long a peer may in all. A host
// that is there answers within a round trip; nothing says that one is not.
const (
	dialWait = time.Second
	utpTime  = 3 * time.Second
	dialTime = 6 * time.Second
)

// listen opens TCP and uTP on one port.
func (s *Swarm) listen(ctx context.Context) (*network, error) {
	n := &network{
		swarm: s, limit: rate.NewLimiter(rate.Inf, writeUnit), open: make(chan struct{}),
		halfOpen: make(chan struct{}, s.cfg.MaxHalfOpen),
	}
	n.pace(s.cfg.now())
	if lan := s.cfg.LANUploadRate; lan > 0 {
		n.lanLimit = rate.NewLimiter(rate.Limit(lan), max(writeUnit, int(lan/4)))
	}
	var failed error
	for range 20 { // a free port for TCP can be taken for UDP
		tcp, err := (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, "tcp", s.cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("listen for BitTorrent: %w", err)
		}
		n.addr = tcp.Addr().(*net.TCPAddr).AddrPort()
		socket, err := s.listenUTP(ctx, n.addr.String())
		if err == nil {
			n.tcp, n.utp = tcp, socket
			socket.SetFirewallCallback(s.refuses)
			return n, nil
		}
		failed = fmt.Errorf("listen for BitTorrent over uTP: %w", errors.Join(err, tcp.Close()))
	}
	return nil, failed
}

// utpBuffer is the kernel's room for datagrams that have come, in bytes. With the
// usual 208 KiB, 277 acknowledgements fill it, and twenty clients of a busy box lost
// the same request seven times in a row, and then their connection.
const utpBuffer = 4 << 20

func (s *Swarm) listenUTP(ctx context.Context, addr string) (utp.Socket, error) {
	pc, err := (&net.ListenConfig{Control: widen}).ListenPacket(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	return utp.NewSocketFromPacketConn(pc, utp.WithLogger(s.log))
}

// widen gives a socket utpBuffer, or as much of it as the system allows.
func widen(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, utpBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, utpBuffer) // less is slower
		}
	})
}

func (n *network) close() error {
	if n.dht != nil {
		n.dht.Close()
	}
	return errors.Join(n.tcp.Close(), n.utp.Close())
}

// attach gives the client its ways in and out. Connections come in only once
// all are in place, because the client reads its list without a lock.
func (n *network) attach(client *torrent.Client, withDHT bool) {
	client.AddDialer(n)
	client.AddListener(&door{Listener: n.tcp, network: n})
	client.AddListener(&door{Listener: utpListener{n.utp}, network: n})
	if withDHT {
		server, err := client.NewAnacrolixDhtServer(&guardedPackets{PacketConn: n.utp, swarm: n.swarm})
		if err != nil {
			n.swarm.log.Warn("failed to join the DHT", "err", err)
		} else {
			n.dht = server
			client.AddDhtServer(torrent.AnacrolixDhtServerWrapper{Server: server})
		}
	}
	close(n.open)
}

// onLAN says whether a host:port lies in a network of the LAN.
func (s *Swarm) onLAN(addr string) bool {
	ap, err := netip.ParseAddrPort(addr)
	return err == nil && s.inLAN(ap.Addr())
}

func (s *Swarm) inLAN(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, p := range s.cfg.LAN {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

var (
	errNoSlot = errors.New("all connections to the outside are in use")
	errFed    = errors.New("the LAN brings what is wanted")
)

// DialerNetwork implements torrent.Dialer.
func (n *network) DialerNetwork() string { return "tcp" }

// Dial implements torrent.Dialer: it connects to a peer by TCP, or by uTP if
// that is not answered. A peer outside the LAN needs the guard's leave and a slot.
func (n *network) Dial(ctx context.Context, addr string) (net.Conn, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil || ap.Port() == 0 {
		return nil, fmt.Errorf("connect to peer %q: not an address and port", clip(addr))
	}
	if n.swarm.inLAN(ap.Addr()) {
		conn, err := n.race(ctx, ap, n.swarm.direct(ap.String()))
		if err != nil {
			n.swarm.firsts.end(ap.Addr().Unmap().WithZone(""))
			return nil, err
		}
		return n.onInside(conn), nil
	}
	return n.dialOutside(ctx, ap)
}

func (n *network) dialOutside(ctx context.Context, ap netip.AddrPort) (net.Conn, error) {
	candidates := n.swarm.looking()
	if !slices.ContainsFunc(candidates, (*share).private) {
		n.swarm.met.add(time.Now(), netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
	}
	if len(candidates) > 0 && !slices.ContainsFunc(candidates, func(sh *share) bool { return !sh.near.feeds.Load() }) {
		n.swarm.book.later(ap, candidates)
		return nil, errFed
	}
	select {
	case n.halfOpen <- struct{}{}:
		defer func() { <-n.halfOpen }()
	case <-ctx.Done():
		n.swarm.book.later(ap, candidates)
		return nil, ctx.Err()
	}
	if !n.swarm.budget.take() {
		n.swarm.book.later(ap, candidates)
		return nil, errNoSlot
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := n.race(ctx, ap, n.swarm.dial)
	if err != nil {
		n.swarm.budget.free()
		n.swarm.book.failed(ap, candidates)
		return nil, err
	}
	return n.swarm.budget.hold(conn, n.limit, func(of *share) {
		if of == nil { // it may have been the wrong torrent
			n.swarm.book.failed(ap, candidates)
			return
		}
		n.swarm.book.left(ap, of)
	}), nil
}

type dialled struct {
	conn net.Conn
	err  error
}

// race dials by TCP and, when that has failed or taken dialWait, by uTP. It
// waits for both, so that no connection outlives its slot unseen.
func (n *network) race(ctx context.Context, ap netip.AddrPort, dial Dial) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tcp, datagrams := make(chan dialled, 1), make(chan dialled, 1)
	go func() {
		conn, err := dial(ctx, "tcp", ap.String())
		tcp <- dialled{conn, err}
	}()
	wait := time.NewTimer(dialWait)
	defer wait.Stop()
	select {
	case first := <-tcp:
		if first.err == nil {
			return first.conn, nil
		}
		conn, err := n.dialUTP(ctx, ap, dial)
		if err != nil {
			return nil, errors.Join(first.err, err)
		}
		return conn, nil
	case <-wait.C:
	}
	go func() {
		conn, err := n.dialUTP(ctx, ap, dial)
		datagrams <- dialled{conn, err}
	}()
	var first, second dialled
	select {
	case first = <-tcp:
		if first.err == nil {
			cancel()
		}
		second = <-datagrams
	case first = <-datagrams:
		if first.err == nil {
			cancel()
		}
		second = <-tcp
	}
	switch {
	case first.err == nil && second.err == nil:
		_ = second.conn.Close()
		return first.conn, nil
	case first.err == nil:
		return first.conn, nil
	case second.err == nil:
		return second.conn, nil
	}
	return nil, errors.Join(first.err, second.err)
}

func (n *network) dialUTP(ctx context.Context, ap netip.AddrPort, dial Dial) (net.Conn, error) {
	if err := leave(ctx, dial, ap.String()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, utpTime)
	defer cancel()
	conn, err := n.utp.DialContext(ctx, "", ap.String())
	if err != nil { // a nil *Conn must not become a net.Conn
		return nil, fmt.Errorf("connect to %s by uTP: %w", ap, err)
	}
	return conn, nil
}

// leave asks a dialer whether datagrams may be sent to an address. Dialling UDP
// checks the address and sends nothing.
func leave(ctx context.Context, dial Dial, addr string) error {
	probe, err := dial(ctx, "udp", addr)
	if err != nil {
		return err
	}
	return probe.Close()
}

// door lets peers in: those on the LAN always, others while there are slots.
type door struct {
	net.Listener
	network *network
}

func (d *door) Accept() (net.Conn, error) {
	<-d.network.open
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				time.Sleep(50 * time.Millisecond) // out of descriptors: the client asks again at once
			}
			return nil, err
		}
		s := d.network.swarm
		if s.onLAN(conn.RemoteAddr().String()) {
			return d.network.onInside(conn), nil
		}
		if s.budget.take() {
			return s.budget.hold(conn, d.network.limit, func(*share) {}), nil
		}
		_ = conn.Close()
	}
}

// utpListener makes a net.Listener of a socket.
type utpListener struct{ utp.Socket }

func (l utpListener) Close() error { return l.Socket.Close() }

// guardedPackets refuses to send datagrams where the dialer would not go.
type guardedPackets struct {
	net.PacketConn
	swarm *Swarm

	// mu guards what follows.
	mu      sync.Mutex
	allowed map[string]bool
}

// maxAllowed bounds how many answers are remembered.
const maxAllowed = 4096

func (g *guardedPackets) WriteTo(p []byte, to net.Addr) (int, error) {
	addr := to.String()
	g.mu.Lock()
	ok, known := g.allowed[addr]
	g.mu.Unlock()
	if !known {
		ok = leave(g.swarm.ctx, g.swarm.dial, addr) == nil
		g.mu.Lock()
		if g.allowed == nil || len(g.allowed) >= maxAllowed {
			g.allowed = map[string]bool{}
		}
		g.allowed[addr] = ok
		g.mu.Unlock()
	}
	if !ok {
		return len(p), nil // as if it had been lost: an error would end the whole socket's use
	}
	return g.PacketConn.WriteTo(p, to)
}

// clientConfig sets up the client: no sockets, files or addresses of its own.
func (s *Swarm) clientConfig(n *network) *torrent.ClientConfig {
	c := torrent.NewDefaultClientConfig()
	c.DisableTCP, c.DisableUTP, c.NoDHT = true, true, true // it gets ours
	c.DialForPeerConns = false
	c.NoDefaultPortForwarding = true
	c.DisableWebtorrent = true // WebRTC would find its own ways out
	c.PeriodicallyAnnounceTorrentsToDht = false
	c.DefaultStorage = noStorage{}
	c.Seed = true
	c.Slogger = s.quietLog()
	c.DisableTrackers = true // the shares announce by themselves
	c.HTTPDialContext = s.dial
	c.HTTPProxy = nil
	c.EstablishedConnsPerTorrent = 0 // until the budget is divided
	c.HalfOpenConnsPerTorrent = s.cfg.MaxHalfOpen
	c.TotalHalfOpenConns = 4 * s.cfg.MaxHalfOpen
	c.NominalDialTimeout = 2 * dialTime
	c.MinDialTimeout = dialTime
	c.TorrentPeersHighWater = 500
	// A request that is moved to another peer while its answer is on the way
	// brings the same bytes twice: that is what the box is there to avoid.
	c.StealRequestGrace = s.cfg.stealGrace
	c.Callbacks.CompletedHandshake = s.handshaken
	c.Callbacks.ReadMessage = s.readMessage
	c.Callbacks.ReadExtendedHandshake = s.greeted
	c.Callbacks.PeerConnReadExtensionMessage = append(c.Callbacks.PeerConnReadExtensionMessage, s.readExtended)
	c.Callbacks.PeerClosed = append(c.Callbacks.PeerClosed, s.peerClosed)
	if s.cfg.LocalDiscovery {
		c.LocalServiceDiscovery = &torrent.LocalServiceDiscoveryConfig{Ifi: s.cfg.LocalDiscoveryInterface}
	}
	return c
}

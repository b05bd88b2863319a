// Package utp stands in for github.com/anacrolix/go-utp, which cannot be
// resolved, over the pure-Go github.com/anacrolix/utp. It holds only the
// surface that anacrolix/torrent uses and adds two protections: packets that
// would open a connection the firewall refuses are dropped before any state is
// made for them, and a panic of the underlying library while it accepts a
// connection costs that connection only. Start reading at [Socket].
package utp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"

	"github.com/anacrolix/utp"
)

// Default names the implementation in messages.
const Default = "anacrolix/utp"

// FirewallCallback says whether a new connection from an address is refused.
// It is called once for each packet that asks for one and must not block.
type FirewallCallback func(net.Addr) bool

// Socket is a UDP socket that carries uTP connections (BEP 29), and hands the
// packets that are not uTP to ReadFrom. All methods are safe for concurrent
// use.
type Socket interface {
	net.PacketConn
	// Accept waits for the next connection from outside.
	Accept() (net.Conn, error)
	// Addr is the address that the socket listens on.
	Addr() net.Addr
	// DialContext connects to addr; network may be empty, or udp, udp4 or udp6.
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	// SetFirewallCallback replaces the firewall; nil lets everybody in.
	SetFirewallCallback(FirewallCallback)
}

// Option changes how a socket is made.
type Option func(*socket)

// WithLogger sets where the socket reports what it survived.
func WithLogger(log *slog.Logger) Option { return func(s *socket) { s.log = log } }

// NewSocket listens on a UDP address. The port 0 chooses a free one.
func NewSocket(network, addr string, opts ...Option) (Socket, error) {
	pc, err := net.ListenPacket(network, addr)
	if err != nil {
		return nil, err
	}
	return NewSocketFromPacketConn(pc, opts...)
}

// NewSocketFromPacketConn carries uTP over pc, which it owns from now on.
func NewSocketFromPacketConn(pc net.PacketConn, opts ...Option) (Socket, error) {
	s := &socket{log: slog.New(slog.DiscardHandler)}
	for _, o := range opts {
		o(s)
	}
	inner, err := utp.NewSocketFromPacketConn(&guarded{PacketConn: pc, refuses: s.refuses})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open uTP socket: %w", err), pc.Close())
	}
	s.Socket = inner
	return s, nil
}

type socket struct {
	*utp.Socket
	log      *slog.Logger
	firewall atomic.Pointer[FirewallCallback]
}

func (s *socket) SetFirewallCallback(f FirewallCallback) { s.firewall.Store(&f) }

func (s *socket) refuses(addr net.Addr) bool {
	f := s.firewall.Load()
	return f != nil && *f != nil && (*f)(addr)
}

// Accept hides the library's panics: it asserts what a peer that reuses
// connection ids can make untrue.
func (s *socket) Accept() (net.Conn, error) {
	for {
		if conn, done, err := s.accept(); done {
			return conn, err
		}
	}
}

func (s *socket) accept() (conn net.Conn, done bool, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			s.log.Warn("dropped a uTP connection that the library could not accept", "err", fault)
		}
	}()
	conn, err = s.Socket.Accept()
	return conn, true, err
}

// guarded drops what the firewall refuses on its way in.
type guarded struct {
	net.PacketConn
	refuses func(net.Addr) bool
}

// synHeader is the first byte of a packet that opens a connection: type ST_SYN
// (4) and version 1 (BEP 29).
const synHeader = 4<<4 | 1

func (g *guarded) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, addr, err := g.PacketConn.ReadFrom(p)
		if err == nil && n >= 20 && p[0] == synHeader && g.refuses(addr) {
			continue
		}
		return n, addr, err
	}
}

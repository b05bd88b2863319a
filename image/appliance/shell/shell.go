// Package shell is the way into an appliance by SSH: whoever has a key says the
// commands of cistern, one to a connection or many at a prompt, and nothing else.
//
// There is no shell behind it. Words are split here and go to one program as they
// are; it runs as the user that this program runs as, which is not root. There is
// no password, no forwarding of ports, agents or screens, no file transfer, and
// no answer to addresses outside the LAN. Start reading at [Server.Serve].
package shell

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// User is the one name to log in by.
const User = "cistern"

// Bounds of what goes on at once.
const (
	maxWaiting  = 10               // connections that have not logged in
	maxSessions = 4                // that have
	grace       = 30 * time.Second // to log in, and to begin a session
	idle        = 15 * time.Minute // at a prompt
)

// Config says who may come in, and what they reach.
type Config struct {
	// Keys is the authorized_keys file; it is read at each login.
	Keys string
	// HostKey is the private key of the box, as PEM.
	HostKey []byte
	// Program is what does the words of a session, with what comes before them.
	Program []string
	// Env is all that Program finds in its environment.
	Env []string
	// Dir is where it runs; empty means here.
	Dir string
}

// Server answers SSH.
type Server struct {
	cfg    Config
	log    *slog.Logger
	host   ssh.Signer
	places chan struct{} // one for each who has logged in
}

// New checks the configuration; it touches no file.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	if len(cfg.Program) == 0 || cfg.Keys == "" {
		return nil, errors.New("ssh: no program or no keys named")
	}
	host, err := ssh.ParsePrivateKey(cfg.HostKey)
	if err != nil {
		return nil, fmt.Errorf("ssh: read the host key: %w", err)
	}
	return &Server{cfg: cfg, log: log, host: host, places: make(chan struct{}, maxSessions)}, nil
}

// Serve answers on a listener, which it closes, until ctx is done, and waits for
// all that it has begun.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() }) // ends Accept
	defer stop()
	waiting := make(chan struct{}, maxWaiting)
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ssh: %w", err)
		}
		from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
		if err != nil || !onLAN(from.Addr()) {
			s.log.Warn("refused a client outside the LAN", "client", conn.RemoteAddr().String())
			_ = conn.Close() // nothing was said
			continue
		}
		select {
		case waiting <- struct{}{}:
			all.Go(func() { s.meet(ctx, conn, from.Addr(), waiting) })
		default:
			_ = conn.Close() // too many knock at once
		}
	}
}

// meet has somebody log in, and serves them until they leave.
func (s *Server) meet(ctx context.Context, conn net.Conn, from netip.Addr, waiting <-chan struct{}) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	err := conn.SetDeadline(time.Now().Add(grace))
	var c *ssh.ServerConn
	var channels <-chan ssh.NewChannel
	var requests <-chan *ssh.Request
	if err == nil {
		c, channels, requests, err = ssh.NewServerConn(conn, s.rules(from))
	}
	<-waiting
	if err != nil {
		s.log.Debug("nobody logged in", "client", from, "err", err)
		return
	}
	defer c.Close()
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	default:
		s.log.Warn("refused a login: too many are in", "client", from)
		return
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return
	}
	s.log.Info("logged in", "client", from, "key", c.Permissions.Extensions[keyOf])
	s.attend(ctx, c, channels, requests)
	s.log.Info("logged out", "client", from)
}

// keyOf names the fingerprint among what a login allows.
const keyOf = "key"

// rules are those of one connection.
func (s *Server) rules(from netip.Addr) *ssh.ServerConfig {
	rules := &ssh.ServerConfig{
		MaxAuthTries:  6,
		ServerVersion: "SSH-2.0-Cistern",
		PublicKeyAuthAlgorithms: []string{
			ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512,
		},
		PublicKeyCallback: func(who ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			mark := ssh.FingerprintSHA256(key)
			text, err := os.ReadFile(s.cfg.Keys)
			if err != nil {
				return nil, fmt.Errorf("read the keys: %w", err)
			}
			keys, _ := ParseKeys(text) // lines that are none let nobody in
			for _, k := range keys {
				if who.User() == User && k.Fingerprint == mark {
					return &ssh.Permissions{Extensions: map[string]string{keyOf: mark}}, nil
				}
			}
			s.log.Warn("refused a key", "client", from, "key", mark)
			return nil, errors.New("the key is not one of the box's, or the name is not " + User)
		},
	}
	rules.AddHostKey(s.host)
	return rules
}

// attend takes one session after the other, and refuses all else, until the
// connection ends. One without a session for a while is ended.
func (s *Server) attend(ctx context.Context, c *ssh.ServerConn, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	var parts sync.WaitGroup
	defer parts.Wait()
	defer c.Close()
	parts.Go(func() { ssh.DiscardRequests(requests) })
	quiet := time.AfterFunc(grace, func() { _ = c.Close() })
	defer quiet.Stop()
	busy := make(chan struct{}, 1)
	for channel := range channels {
		if channel.ChannelType() != "session" {
			_ = channel.Reject(ssh.Prohibited, "the box forwards nothing") // who asked may have gone
			continue
		}
		select {
		case busy <- struct{}{}:
		default:
			_ = channel.Reject(ssh.ResourceShortage, "one session to a connection")
			continue
		}
		ch, asks, err := channel.Accept()
		if err != nil {
			return
		}
		quiet.Stop()
		parts.Go(func() {
			defer func() {
				quiet.Reset(grace)
				<-busy
			}()
			s.session(ctx, ch, asks)
		})
	}
}

// onLAN reports whether an address is of a private or a directly connected
// network, or of this machine.
func onLAN(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, n := range own {
		p, err := netip.ParsePrefix(n.String())
		if err == nil && p.Masked().Contains(a) {
			return true
		}
	}
	return false
}

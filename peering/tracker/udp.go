package tracker

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"time"
)

// Sizes and numbers of BEP 15.
const (
	protocolID   = 0x41727101980
	announceSize = 98
	maxPacket    = 2048
)

type action uint32

const (
	actionConnect action = iota
	actionAnnounce
	actionScrape
	actionError
)

// errPacket says that a datagram is none of BEP 15.
var errPacket = errors.New("not a packet of a tracker's client")

// packet is the head of a request.
type packet struct {
	connection  uint64
	action      action
	transaction uint32
	body        []byte // what follows
}

func parsePacket(b []byte) (p packet, err error) {
	if len(b) < 16 {
		return p, errPacket
	}
	p.connection = binary.BigEndian.Uint64(b)
	p.action = action(binary.BigEndian.Uint32(b[8:]))
	p.transaction = binary.BigEndian.Uint32(b[12:])
	p.body = b[16:]
	return p, nil
}

// announce reads the body of an announce and the options behind it.
func (p packet) announce() (*announce, error) {
	b := p.body
	if len(b) < announceSize-16 {
		return nil, errPacket
	}
	a := &announce{infohash: [20]byte(b[:20]), compact: true}
	if a.left = int64(binary.BigEndian.Uint64(b[48:])); a.left < 0 {
		a.left = -1
	}
	a.event = event(binary.BigEndian.Uint32(b[64:]))
	a.numWant = wanted(int64(int32(binary.BigEndian.Uint32(b[76:]))))
	a.port = binary.BigEndian.Uint16(b[80:])
	address, err := options(b[82:])
	if err != nil {
		return nil, err
	}
	a.plain = true
	if address != "" {
		path, query, _ := cutQuery(address)
		a.plain = query == "" && (path == "/" || isPlain(path))
	}
	return a, nil
}

func cutQuery(address string) (path, query string, ok bool) {
	u, err := url.ParseRequestURI(address)
	if err != nil {
		return address, "", false
	}
	return u.Path, u.RawQuery, true
}

// options reads the path and query that a client's tracker URL had (BEP 41).
func options(b []byte) (address string, err error) {
	for len(b) > 0 {
		switch kind := b[0]; {
		case kind == 0: // the end; some clients pad behind it
			return address, nil
		case kind == 1:
			b = b[1:]
		case len(b) < 2 || len(b) < 2+int(b[1]):
			return "", errPacket
		default:
			if kind == 2 {
				address += string(b[2 : 2+int(b[1])])
			}
			b = b[2+int(b[1]):]
		}
	}
	return address, nil
}

// idLife is how long a connection id holds at least; BEP 15 gives clients one
// minute and trackers two.
const idLife = 2 * time.Minute

// connectionID is what a client at an address must show, so that nobody can
// have answers sent to somebody else. It needs no memory.
func (s *Server) connectionID(client netip.AddrPort, window int64) uint64 {
	mac := hmac.New(sha256.New, s.secret[:])
	ip := client.Addr().As16()
	mac.Write(ip[:])
	mac.Write(binary.BigEndian.AppendUint16(nil, client.Port()))
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(window)))
	return binary.BigEndian.Uint64(mac.Sum(nil))
}

func (s *Server) isConnected(client netip.AddrPort, id uint64, now time.Time) bool {
	window := now.Unix() / int64(idLife.Seconds())
	return id == s.connectionID(client, window) || id == s.connectionID(client, window-1)
}

// serveUDP answers datagrams until the socket is closed.
func (s *Server) serveUDP(pc *net.UDPConn) error {
	buf := make([]byte, maxPacket)
	for {
		n, from, err := pc.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		client := netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
		if answer := s.reply(client, buf[:n], time.Now()); answer != nil {
			_, _ = pc.WriteToUDPAddrPort(answer, from) // as if it had been lost
		}
	}
}

// reply answers a datagram that was meant for this tracker; nil if it deserves
// none. No answer is longer than its question but to who has a connection id.
func (s *Server) reply(client netip.AddrPort, b []byte, now time.Time) []byte {
	p, err := parsePacket(b)
	if err != nil || !s.welcome(client.Addr()) {
		return nil
	}
	if !s.limits.allow(client.Addr(), now) {
		s.crowd.refused()
		return nil
	}
	if p.action == actionConnect {
		if p.connection != protocolID {
			return nil
		}
		id := s.connectionID(client, now.Unix()/int64(idLife.Seconds()))
		return binary.BigEndian.AppendUint64(p.head(actionConnect), id)
	}
	if !s.isConnected(client, p.connection, now) {
		return append(p.head(actionError), "connection id is not valid"...)
	}
	switch p.action {
	case actionAnnounce:
		a, err := p.announce()
		if err != nil {
			return nil
		}
		t, ok := s.decide(a, "")
		if !ok {
			a.event = stopped // nobody to name
			return s.packet(p, a, t, client.Addr())
		}
		s.admit(a, client.Addr(), t, now)
		return s.packet(p, a, t, client.Addr())
	case actionScrape:
		return s.scrapePacket(p)
	}
	return append(p.head(actionError), "unknown action"...)
}

// AnswerUDP answers an announce that was on its way to another tracker. It is
// false if that tracker is to answer it.
func (s *Server) AnswerUDP(client, tracker netip.AddrPort, b []byte) (answer []byte, ok bool) {
	ip := client.Addr().Unmap().WithZone("")
	p, err := parsePacket(b)
	if err != nil || p.action != actionAnnounce || !s.welcome(ip) {
		return nil, false
	}
	a, err := p.announce()
	if err != nil || !a.plain {
		return nil, false
	}
	t, ok := s.decide(a, "udp://"+tracker.String()+"/announce")
	if _, family := s.peer(ip.Is4()); !ok || !family {
		s.crowd.passed()
		return nil, false
	}
	s.admit(a, ip, t, time.Now())
	return s.packet(p, a, t, ip), true
}

func (p packet) head(act action) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(act)), p.transaction)
}

// packet writes the answer to an announce. The addresses in it are of the family
// by which the question came.
func (s *Server) packet(p packet, a *announce, t Torrent, client netip.Addr) []byte {
	complete, incomplete := s.figures(a.infohash, t)
	b := p.head(actionAnnounce)
	b = binary.BigEndian.AppendUint32(b, uint32(s.cfg.Interval.Seconds()))
	b = binary.BigEndian.AppendUint32(b, uint32(incomplete))
	b = binary.BigEndian.AppendUint32(b, uint32(complete))
	if box, ok := s.peer(client.Is4()); ok && a.event != stopped {
		b = appendPeer(b, box)
	}
	return b
}

func (s *Server) scrapePacket(p packet) []byte {
	b := p.head(actionScrape)
	for i := 0; i+20 <= len(p.body) && i < 20*maxScrape; i += 20 {
		h := [20]byte(p.body[i : i+20])
		var complete, incomplete int
		if t, known := s.swarm.Torrent(h); known && !t.Private {
			complete, incomplete = s.figures(h, t)
		}
		for _, n := range []int{complete, complete, incomplete} { // seeders, completed, leechers
			b = binary.BigEndian.AppendUint32(b, uint32(n))
		}
	}
	return b
}

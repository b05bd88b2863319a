package peering

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/cistern-edge/cistern/cache/origin"
)

// Hours is a part of each day with an upload rate of its own.
type Hours struct {
	origin.Hours
	// UploadRate is as Config has it, but 0 means that nothing is seeded to the
	// outside; torrents that are being fetched go on with minUpload.
	UploadRate int64
}

// minUpload is what is left for the outside in any case, in bytes a second:
// requests are sent too.
const minUpload = 16 << 10

// uploadRate is the bound at a time of day; negative for none.
func (c Config) uploadRate(now time.Time) int64 {
	for _, h := range c.Hours {
		if h.Contains(now) {
			return h.UploadRate
		}
	}
	return c.UploadRate
}

// pace sets the bound that holds now.
func (n *network) pace(now time.Time) {
	bound := n.swarm.cfg.uploadRate(now)
	if bound < 0 {
		n.limit.SetLimit(rate.Inf)
		return
	}
	bound = max(bound, minUpload)
	n.limit.SetLimit(rate.Limit(bound))
	n.limit.SetBurst(max(writeUnit, int(bound/4)))
}

// isSeeding says whether the outside may have a torrent that is complete.
func (sh *share) isSeeding(now time.Time) bool {
	cfg := sh.swarm.cfg
	switch {
	case sh.made, cfg.uploadRate(now) == 0:
		return false
	case cfg.SeedTime > 0 && now.Sub(sh.added) > cfg.SeedTime:
		return false
	}
	layout := sh.specNow().layout
	return cfg.SeedRatio <= 0 || layout == nil || float64(sh.given.Load()) < cfg.SeedRatio*float64(layout.total)
}

// isOpen says whether the torrent may have connections to the outside: not while
// the LAN brings it.
func (sh *share) isOpen(now time.Time) bool {
	return !sh.made && (sh.needsData() && !sh.near.feeds.Load() || sh.isSeeding(now))
}

// What the outside was given of a torrent lies beside it, or each start would
// begin a ratio anew.

func (sh *share) givenFile() string {
	return filepath.Join(sh.swarm.cfg.Dir, joinedDir, sh.key()+givenExt)
}

func (sh *share) readGiven() {
	if text, err := os.ReadFile(sh.givenFile()); err == nil {
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && n > 0 {
			sh.given.Store(n)
			sh.givenKept.Store(n)
		}
	}
}

// keepGiven writes it down if it is least bytes more than what is written.
func (sh *share) keepGiven(least int64) {
	n := sh.given.Load()
	if sh.made || n-sh.givenKept.Load() < least {
		return
	}
	sh.givenKept.Store(n)
	if err := writeFile(sh.givenFile(), strconv.AppendInt(nil, n, 10)); err != nil {
		sh.swarm.log.Warn("failed to keep what a torrent has uploaded", "title", sh.title(), "err", err)
	}
}

// writePaced sends p in units that a limiter lets through.
func writePaced(ctx context.Context, conn net.Conn, limit *rate.Limiter, p []byte) (sent int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), writeUnit)]
		if err := limit.WaitN(ctx, len(part)); err != nil {
			return sent, net.ErrClosed
		}
		n, err := conn.Write(part)
		sent += n
		if err != nil {
			return sent, err
		}
		p = p[n:]
	}
	return sent, nil
}

// inside is a connection to a peer on the LAN, where its uploads are bounded.
type inside struct {
	net.Conn
	limit *rate.Limiter
}

func (i *inside) Write(p []byte) (int, error) {
	return writePaced(context.Background(), i.Conn, i.limit, p)
}

// onInside bounds what a peer on the LAN gets, if anything does.
func (n *network) onInside(conn net.Conn) net.Conn {
	if n.lanLimit == nil {
		return conn
	}
	return &inside{conn, n.lanLimit}
}

// direct is the dialer for a peer on the LAN. Whoever named it, it gets a
// handshake and nothing else that others chose; so the guard is asked only about
// what no peer listens on: this machine, and ports of the system.
func (s *Swarm) direct(to string) Dial {
	host, port, err := net.SplitHostPort(to)
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 1024 {
		return s.dial
	}
	ip := net.ParseIP(host)
	if ip == nil || !ip.IsPrivate() || isOwn(ip) {
		return s.dial
	}
	return (&net.Dialer{Timeout: dialTime}).DialContext
}

// isOwn says whether an address is one of this machine's; if they cannot be read,
// each counts as one.
func isOwn(ip net.IP) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return true
		}
	}
	return false
}

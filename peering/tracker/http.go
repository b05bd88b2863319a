package tracker

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of what clients may send and ask for.
const (
	maxHead     = 16 << 10 // of a request, in bytes
	maxScrape   = 64       // infohashes of one scrape
	usualWanted = 50       // peers, where a client does not say (BEP 3 leaves it open)
	mostWanted  = 200
)

// event is what a client tells beside its figures, in the numbers of BEP 15.
type event uint32

const (
	none event = iota
	completed
	started
	stopped
)

// announce is what a client says about itself.
type announce struct {
	infohash [20]byte
	port     uint16
	left     int64 // bytes; -1 if not said
	event    event
	numWant  int
	compact  bool
	// plain says that nothing else is in it than any public tracker knows of.
	plain bool
}

// known are the keys of an announce that every tracker may get (BEP 3, 7, 8, 23
// and what clients send beside). Whoever sends another one, such as a passkey,
// means his own tracker.
var known = []string{
	"info_hash", "peer_id", "port", "uploaded", "downloaded", "left", "event", "ip", "ipv4", "ipv6", "numwant", "num_want",
	"no_peer_id", "compact", "key", "trackerid", "supportcrypto", "requirecrypto", "cryptoport", "corrupt", "redundant",
	"azudp", "azhttp", "azver", "azq", "azas", "hide",
}

// isPlain says whether an announce went to a path that names nobody.
func isPlain(path string) bool {
	return path == "/announce" || path == "/announce.php" || path == "/announce/"
}

// parseQuery reads the announce in a URL's path and query.
func parseQuery(path, query string) (*announce, error) {
	a := &announce{left: -1, numWant: usualWanted, compact: true, plain: isPlain(path)}
	hashes := 0
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		key, text, _ := strings.Cut(pair, "=")
		if !slices.Contains(known, key) {
			a.plain = false
			continue
		}
		value, err := url.PathUnescape(text) // a + stands for itself: the fields are bytes
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		if key == "info_hash" {
			hashes++
		}
		if err := a.set(key, value); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	if hashes != 1 {
		return nil, errors.New("info_hash: want one")
	}
	return a, nil
}

func (a *announce) set(key, value string) (err error) {
	switch key {
	case "info_hash":
		if copy(a.infohash[:], value) != len(a.infohash) || len(value) != len(a.infohash) {
			return fmt.Errorf("has %d bytes, want 20", len(value))
		}
	case "port":
		n, perr := strconv.ParseUint(value, 10, 16)
		a.port, err = uint16(n), perr
	case "left":
		if a.left, err = strconv.ParseInt(value, 10, 64); a.left < 0 {
			a.left = -1 // some clients say so before they have the metadata
		}
	case "numwant", "num_want":
		n, perr := strconv.ParseInt(value, 10, 32)
		a.numWant, err = wanted(n), perr
	case "compact":
		a.compact = value != "0"
	case "event":
		a.event = map[string]event{"completed": completed, "started": started, "stopped": stopped}[value]
	}
	return err
}

// wanted bounds a number of peers; a negative one means the tracker's choice.
func wanted(n int64) int {
	if n < 0 {
		return usualWanted
	}
	return int(min(n, mostWanted))
}

// ServeHTTP answers announces and scrapes that were meant for this tracker. An
// announce of a torrent that is not answered for gets no peers.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	client := from.Addr().Unmap().WithZone("")
	switch {
	case !s.welcome(client):
		http.Error(w, "only clients of the LAN are answered", http.StatusForbidden)
		return
	case r.Method != http.MethodGet:
		http.Error(w, "announce and scrape are asked with GET", http.StatusMethodNotAllowed)
		return
	case !s.limits.allow(client, time.Now()):
		s.crowd.refused()
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too many announces", http.StatusTooManyRequests)
		return
	}
	var answer []byte
	switch r.URL.Path {
	case "/announce", "/announce/":
		a, err := parseQuery(r.URL.Path, r.URL.RawQuery)
		if err != nil {
			answer = failure(err)
			break
		}
		if t, ok := s.decide(a, ""); ok {
			answer = s.answer(a, client, t)
		} else {
			a.event = stopped // nobody to name
			answer = s.render(a, t, client)
		}
	case "/scrape":
		answer = s.scrape(r.URL.RawQuery)
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	_, _ = w.Write(answer) // the client's loss
}

// AnswerHTTP answers an announce that was on its way to another tracker with the
// body of a 200. It is false if that tracker is to answer it: for a torrent that
// is not answered for, a passkey, a scrape, or anything else.
func (s *Server) AnswerHTTP(client netip.Addr, r *http.Request) (body []byte, ok bool) {
	client = client.Unmap().WithZone("")
	if r.Method != http.MethodGet || !s.welcome(client) {
		return nil, false
	}
	a, err := parseQuery(r.URL.Path, r.URL.RawQuery)
	if err != nil || !a.plain || r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
		return nil, false
	}
	via := "http://" + r.Host + r.URL.Path
	if isRetracker(r.Host) {
		via = "" // there is nothing to tell it
	}
	t, ok := s.decide(a, via)
	if !ok {
		s.crowd.passed()
		return nil, false
	}
	return s.answer(a, client, t), true
}

// isRetracker says whether a Host is the name under which providers answer for
// their own network (BEP 22 is its formal kin): each tracker of a LAN has it.
func isRetracker(host string) bool {
	name, _, _ := strings.Cut(strings.ToLower(host), ":")
	return strings.TrimSuffix(name, ".") == "retracker.local"
}

// answer notes an announce and gives the body of its answer.
func (s *Server) answer(a *announce, client netip.Addr, t Torrent) []byte {
	s.admit(a, client, t, time.Now())
	return s.render(a, t, client)
}

// render writes an answer (BEP 3, 23, 7). Keys are in order.
func (s *Server) render(a *announce, t Torrent, client netip.Addr) []byte {
	complete, incomplete := s.figures(a.infohash, t)
	interval := int(s.cfg.Interval.Seconds())
	b := fmt.Appendf(nil, "d8:completei%de10:incompletei%de8:intervali%de12:min intervali%de5:peers",
		complete, incomplete, interval, interval/2)
	v4, is4 := s.peer(true)
	v6, is6 := s.peer(false)
	if a.event == stopped {
		is4, is6 = false, false
	}
	// Who came by IPv6 may have no IPv4, and the other way round.
	is4, is6 = is4 && (client.Is4() || !is6), is6 && (!client.Is4() || !is4)
	if !a.compact {
		b = append(b, 'l')
		for _, p := range []struct {
			netip.AddrPort
			ok bool
		}{{v4, is4}, {v6, is6}} {
			if p.ok {
				ip := p.Addr().String()
				b = fmt.Appendf(b, "d2:ip%d:%s4:porti%dee", len(ip), ip, p.Port())
			}
		}
		return append(b, "ee"...)
	}
	if is4 {
		b = appendPeer(append(b, "6:"...), v4)
	} else {
		b = append(b, "0:"...)
	}
	if is6 {
		b = appendPeer(append(b, "6:peers618:"...), v6)
	}
	return append(b, 'e')
}

// figures are what the box and its clients have of a torrent.
func (s *Server) figures(infohash [20]byte, t Torrent) (complete, incomplete int) {
	complete, incomplete = s.crowd.count(infohash, time.Now())
	if t.Complete {
		return complete + 1, incomplete
	}
	return complete, incomplete + 1
}

// appendPeer writes address and port in the compact form (BEP 23, BEP 7).
func appendPeer(b []byte, p netip.AddrPort) []byte {
	b = append(b, p.Addr().AsSlice()...)
	return append(b, byte(p.Port()>>8), byte(p.Port()))
}

func failure(err error) []byte {
	text := err.Error()
	return fmt.Appendf(nil, "d14:failure reason%d:%se", len(text), text)
}

// scrape answers for the torrents that are named and answered for (BEP 48).
func (s *Server) scrape(query string) []byte {
	var hashes [][20]byte
	for pair := range strings.SplitSeq(query, "&") {
		key, text, _ := strings.Cut(pair, "=")
		value, err := url.PathUnescape(text)
		if key != "info_hash" || err != nil || len(value) != 20 || len(hashes) == maxScrape {
			continue
		}
		hashes = append(hashes, [20]byte([]byte(value)))
	}
	slices.SortFunc(hashes, func(a, b [20]byte) int { return slices.Compare(a[:], b[:]) })
	b := []byte("d5:filesd")
	for _, h := range slices.Compact(hashes) {
		t, known := s.swarm.Torrent(h)
		if !known || t.Private {
			continue
		}
		complete, incomplete := s.figures(h, t)
		b = append(append(b, "20:"...), h[:]...)
		b = fmt.Appendf(b, "d8:completei%de10:downloadedi%de10:incompletei%dee", complete, complete, incomplete)
	}
	return append(b, "ee"...)
}

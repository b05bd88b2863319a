package tracker

import (
	"bytes"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// This file leads lookups in the DHT (BEP 5) to the box, as announces are: the
// node is asked all the same, but of the peers that it names the client is told
// one.

// meetEvery is the time between two hints at peers of a torrent.
const meetEvery = 2 * time.Second

// AnswerDHT says what becomes of a client's datagram to a node of the DHT. If it
// asks for peers of a torrent that the box takes part in, the box is to send it
// to the node itself; rewrite then makes the client's answer of the node's, with
// the box in place of the peers, and the box is told of those. It is false if
// the datagram is to go on as it is. rewrite does not change its argument.
func (s *Server) AnswerDHT(client netip.AddrPort, query []byte) (rewrite func(answer []byte) []byte, ok bool) {
	ip := client.Addr().Unmap().WithZone("")
	infohash, ok := lookup(query)
	if !ok || !s.welcome(ip) {
		return nil, false
	}
	box, ok := s.peer(ip.Is4())
	if !ok {
		return nil, false
	}
	t, known := s.swarm.Torrent(infohash)
	if !known && s.allow[infohash] && s.due(infohash, time.Minute) {
		s.swarm.Join(infohash, "", nil)
	}
	if !known || t.Private {
		return nil, false
	}
	return func(answer []byte) []byte {
		from, to, peers := values(answer)
		if len(peers) == 0 {
			return answer
		}
		s.crowd.withheld(ip, infohash, len(peers))
		if !t.Complete && s.due(infohash, meetEvery) {
			s.swarm.Join(infohash, "", peers)
		}
		value := appendPeer(nil, box)
		list := append(strconv.AppendInt([]byte{'l'}, int64(len(value)), 10), ':')
		return slices.Concat(answer[:from], list, value, []byte{'e'}, answer[to:])
	}, true
}

// lookup gives the infohash that a get_peers query is about.
func lookup(query []byte) (infohash [20]byte, ok bool) {
	if q, _ := entryText(query, "q"); string(q) != "get_peers" {
		return infohash, false
	}
	from, to, ok := entry(query, "a")
	if !ok {
		return infohash, false
	}
	h, ok := entryText(query[from:to], "info_hash")
	if !ok || len(h) != len(infohash) {
		return infohash, false
	}
	return [20]byte(h), true
}

// values finds the peers in a node's answer, and where their list lies.
func values(answer []byte) (from, to int, peers []netip.AddrPort) {
	rFrom, rTo, ok := entry(answer, "r")
	if !ok {
		return 0, 0, nil
	}
	from, to, ok = entry(answer[rFrom:rTo], "values")
	if !ok || answer[rFrom+from] != 'l' {
		return 0, 0, nil
	}
	from, to = rFrom+from, rFrom+to
	for list := answer[from+1 : to-1]; len(list) > 0; {
		peer, n := text(list)
		if n == 0 {
			return 0, 0, nil
		}
		list = list[n:]
		if len(peer) != 6 && len(peer) != 18 { // BEP 5, BEP 32
			continue
		}
		addr, _ := netip.AddrFromSlice(peer[:len(peer)-2])
		peers = append(peers, netip.AddrPortFrom(addr.Unmap(), uint16(peer[len(peer)-2])<<8|uint16(peer[len(peer)-1])))
	}
	return from, to, peers
}

// maxDepth bounds how deep lists and dictionaries lie in each other.
const maxDepth = 8

// entry finds the value of a key in a bencoded dictionary.
func entry(dict []byte, key string) (from, to int, ok bool) {
	if len(dict) == 0 || dict[0] != 'd' {
		return 0, 0, false
	}
	for at := 1; at < len(dict); {
		k, n := text(dict[at:])
		size := 0
		if n > 0 {
			at += n
			size = length(dict[at:], 0)
		}
		if size == 0 { // the end, or nonsense
			return 0, 0, false
		}
		if string(k) == key {
			return at, at + size, true
		}
		at += size
	}
	return 0, 0, false
}

// entryText is entry for a byte string.
func entryText(dict []byte, key string) ([]byte, bool) {
	from, to, ok := entry(dict, key)
	if !ok {
		return nil, false
	}
	s, n := text(dict[from:to])
	return s, n > 0
}

// length is that of the bencoded value that b begins with; 0 if there is none.
func length(b []byte, depth int) int {
	if len(b) == 0 || depth > maxDepth {
		return 0
	}
	switch b[0] {
	case 'i':
		return bytes.IndexByte(b, 'e') + 1
	case 'l', 'd':
		for n := 1; n < len(b); {
			if b[n] == 'e' {
				return n + 1
			}
			more := length(b[n:], depth+1)
			if more == 0 {
				return 0
			}
			n += more
		}
		return 0
	}
	_, n := text(b)
	return n
}

// text gives the byte string that b begins with, and its length with the head; 0
// if there is none.
func text(b []byte) (s []byte, n int) {
	digits, _, ok := bytes.Cut(b[:min(len(b), len("65535:"))], []byte(":"))
	size, err := strconv.ParseUint(string(digits), 10, 16)
	head := len(digits) + 1
	if !ok || err != nil || int(size) > len(b)-head {
		return nil, 0
	}
	return b[head : head+int(size)], head + int(size)
}

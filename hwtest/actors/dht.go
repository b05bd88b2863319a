package actors

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// DHTNames are the hosts, with their ports, from which clients join the DHT
// unless they are told otherwise.
var DHTNames = map[string]uint16{"dht.libtorrent.org": 25401, "router.bittorrent.com": 6881, "dht.transmissionbt.com": 6881}

// DHT is a distributed hash table (BEP 5) of few nodes that know everything: the
// best that a client can find. Each node is the socket of one host.
type DHT struct {
	// Peers of each torrent.
	Peers map[[20]byte][]netip.AddrPort
	// Delay is how long an answer takes: the round trip to a node somewhere in the
	// world.
	Delay time.Duration

	done  sync.WaitGroup
	nodes []*dhtNode
	asked atomic.Int64
}

type dhtNode struct {
	conn net.PacketConn
	addr netip.AddrPort
	id   [20]byte
}

// Start answers on the sockets, which are reached at addrs, until they are
// closed.
func (d *DHT) Start(conns []net.PacketConn, addrs []netip.AddrPort) {
	for i, c := range conns {
		d.nodes = append(d.nodes, &dhtNode{c, addrs[i], sha1.Sum([]byte(addrs[i].String()))})
	}
	for _, n := range d.nodes {
		d.done.Go(func() {
			for buf := make([]byte, 2048); ; {
				size, from, err := n.conn.ReadFrom(buf)
				if err != nil {
					return
				}
				if answer := d.answer(n, buf[:size]); answer != nil {
					d.done.Go(func() {
						time.Sleep(d.Delay)
						_, _ = n.conn.WriteTo(answer, from)
					})
				}
			}
		})
	}
}

// Close closes the sockets.
func (d *DHT) Close() {
	for _, n := range d.nodes {
		_ = n.conn.Close()
	}
	d.done.Wait()
}

// Asked is how many times a client asked for peers of a torrent that has some.
func (d *DHT) Asked() int64 { return d.asked.Load() }

// answer reads just what it needs of a query.
func (d *DHT) answer(n *dhtNode, q []byte) []byte {
	transaction, ok := bencoded(q, "1:t")
	if !ok || !bytes.Contains(q, []byte("1:y1:q")) {
		return nil
	}
	r := dict{"id": n.id[:]}
	switch kind, _ := bencoded(q, "1:q"); string(kind) {
	case "find_node":
		r["nodes"] = d.compact()
	case "get_peers":
		r["token"], r["nodes"] = []byte("token"), d.compact()
		infohash, _ := bencoded(q, "9:info_hash")
		if len(infohash) != 20 {
			return nil
		}
		if peers := d.Peers[[20]byte(infohash)]; len(peers) > 0 {
			d.asked.Add(1)
			var values list
			for _, p := range peers[:min(len(peers), 100)] {
				values = append(values, compactPeer(p))
			}
			r["values"] = values
		}
	}
	return bencode(nil, dict{"t": slices.Clone(transaction), "y": []byte("r"), "r": r})
}

// compact lists the nodes (BEP 5).
func (d *DHT) compact() (b []byte) {
	for _, n := range d.nodes {
		b = append(append(b, n.id[:]...), compactPeer(n.addr)...)
	}
	return b
}

func compactPeer(p netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(p.Addr().AsSlice(), p.Port())
}

// bencoded finds the byte string behind a key.
func bencoded(b []byte, key string) ([]byte, bool) {
	_, rest, ok := bytes.Cut(b, []byte(key))
	digits, value, colon := bytes.Cut(rest, []byte(":"))
	n, err := strconv.Atoi(string(digits))
	if !ok || !colon || err != nil || n < 0 || n > len(value) {
		return nil, false
	}
	return value[:n], true
}

package steer

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Offsets in datagrams of BEP 15 and BEP 29, from the UDP header on.
const (
	udpHeader      = 8
	actionAt       = udpHeader + 8
	infohashAt     = udpHeader + 16
	announceAction = 1
	utpSYN         = 0x41 // ST_SYN of version 1
)

// A query of the DHT for peers (BEP 5) begins with these, the node's id, the name
// of the infohash and the infohash: the keys of a bencoded dictionary are sorted.
// What has others between them passes.
const (
	dhtQuery   = "d1:ad2:id20:"
	dhtKey     = "9:info_hash20:"
	dhtKeyAt   = udpHeader + len(dhtQuery) + 20
	dhtValueAt = dhtKeyAt + len(dhtKey)
)

// replyMark tells our own datagrams, which look as if a tracker had sent them.
// They must not be tracked: the flow that they answer is translated, and theirs
// would collide with it.
func (c Config) replyMark() uint32 { return c.Mark | 1 }

// rules are all there are. Each matches a set that is empty unless the gate is
// renewed, or a socket that is here.
func (t *table) rules() {
	raw := t.chain("announces", nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw)
	// Behind the translation of addresses, so that answers to our connections in a
	// client's name are recognised.
	streams := t.chain("streams", nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest+50)
	t.rule(streams, meta(expr.MetaKeyL4PROTO, unix.IPPROTO_TCP), transparent(), t.deliver())
	for _, name := range t.cfg.Interfaces {
		for _, f := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
			from := append(iifname(name), meta(expr.MetaKeyNFPROTO, f)...)
			datagrams := append(from[:len(from):len(from)], meta(expr.MetaKeyL4PROTO, unix.IPPROTO_UDP)...)
			t.rule(raw, datagrams, load(expr.PayloadBaseTransportHeader, actionAt, 4, 1), equal(binaryutil.BigEndian.PutUint32(announceAction)),
				load(expr.PayloadBaseTransportHeader, infohashAt, 20, unix.NFT_REG32_00), in(t.infohashes, unix.NFT_REG32_00),
				notLocal(), []expr.Any{&expr.Notrack{}}, t.lead(f), t.deliver())
			t.rule(raw, datagrams, load(expr.PayloadBaseTransportHeader, udpHeader, uint32(len(dhtQuery)), 1), equal([]byte(dhtQuery)),
				load(expr.PayloadBaseTransportHeader, uint32(dhtKeyAt), uint32(len(dhtKey)), 1), equal([]byte(dhtKey)),
				load(expr.PayloadBaseTransportHeader, uint32(dhtValueAt), 20, unix.NFT_REG32_00), in(t.infohashes, unix.NFT_REG32_00),
				notLocal(), []expr.Any{&expr.Notrack{}}, t.lead(f), t.deliver())
			t.rule(streams, from, meta(expr.MetaKeyL4PROTO, unix.IPPROTO_TCP), opening(),
				load(expr.PayloadBaseTransportHeader, 2, 2, 1), in(t.gate, 1), notLocal(), t.lead(f), t.deliver())
		}
	}
	out := t.chain("replies", nftables.ChainHookOutput, *nftables.ChainPriorityRaw)
	t.rule(out, []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}},
		equal(binaryutil.NativeEndian.PutUint32(t.cfg.replyMark())), []expr.Any{&expr.Notrack{}})
	if t.cfg.Mode == Enforce {
		t.enforce(t.chain("peers", nftables.ChainHookForward, *nftables.ChainPriorityFilter-10))
	}
}

// enforce keeps clients of the box from peers of the box. Of UDP only what opens
// a uTP connection is rejected: the DHT uses the same ports.
func (t *table) enforce(c *nftables.Chain) {
	for _, name := range t.cfg.Interfaces {
		for f, at := range map[byte]struct{ src, dst, size uint32 }{unix.NFPROTO_IPV4: {12, 16, 4}, unix.NFPROTO_IPV6: {8, 24, 16}} {
			known := append(append(iifname(name), meta(expr.MetaKeyNFPROTO, f)...),
				load(expr.PayloadBaseNetworkHeader, at.src, at.size, unix.NFT_REG32_00)...)
			known = append(known, in(t.clients[f], unix.NFT_REG32_00)...)
			known = append(known, load(expr.PayloadBaseNetworkHeader, at.dst, at.size, unix.NFT_REG32_00)...)
			known = append(known, load(expr.PayloadBaseTransportHeader, 2, 2, unix.NFT_REG32_00+at.size/4)...)
			known = append(known, in(t.peers[f], unix.NFT_REG32_00)...)
			t.rule(c, meta(expr.MetaKeyL4PROTO, unix.IPPROTO_TCP), opening(), known,
				[]expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
			t.rule(c, meta(expr.MetaKeyL4PROTO, unix.IPPROTO_UDP), load(expr.PayloadBaseTransportHeader, udpHeader, 1, 1), equal([]byte{utpSYN}),
				known, []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}})
		}
	}
}

// lead gives a packet to the socket on loopback.
func (t *table) lead(family byte) []expr.Any {
	to := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if family == unix.NFPROTO_IPV6 {
		to = netip.IPv6Loopback()
	}
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: to.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(t.cfg.Port)},
		&expr.TProxy{Family: family, TableFamily: unix.NFPROTO_INET, RegAddr: 1, RegPort: 2},
	}
}

// deliver marks a packet for the routing table that has it delivered here.
func (t *table) deliver() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(t.cfg.Mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

// transparent matches packets of connections that were taken, or made in a
// client's name.
func transparent() []expr.Any {
	return []expr.Any{
		&expr.Socket{Key: expr.SocketKeyTransparent, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
	}
}

// opening matches the first packet of a TCP connection: those that run already
// are left alone.
func opening() []expr.Any {
	const fin, syn, rst, ack = 1, 2, 4, 16
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{fin | syn | rst | ack}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{syn}},
	}
}

// notLocal matches what is not meant for the box itself, nor for everybody.
func notLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_UNICAST)},
	}
}

func iifname(name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded}}
}

func meta(key expr.MetaKey, value byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{value}}}
}

func load(base expr.PayloadBase, offset, length, register uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}}
}

func equal(value []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value}}
}

func in(s *nftables.Set, register uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: register, SetName: s.Name, SetID: s.ID}}
}

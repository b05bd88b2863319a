package steer

import (
	"encoding/binary"
	"net/netip"
)

const udpProtocol = 17

// forge makes an IP packet of a datagram in somebody's name; both ends are of one
// family. Of IPv4 the kernel fills in length, identification and checksum.
func forge(from, to netip.AddrPort, b []byte) []byte {
	src, dst := from.Addr().AsSlice(), to.Addr().AsSlice()
	size := udpHeader + len(b)
	udp := binary.BigEndian.AppendUint16(nil, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(size))
	udp = append(append(udp, 0, 0), b...)
	// The sum is over addresses, length and protocol too (RFC 768, RFC 8200 §8.1).
	sum := checksum(uint32(size)+udpProtocol, src, dst, udp)
	if sum == 0 {
		sum = 0xffff // 0 says that there is none
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	const hops = 64
	var head []byte
	if from.Addr().Is4() {
		head = append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, hops, udpProtocol, 0, 0}, src...)
	} else {
		head = binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(size))
		head = append(append(head, udpProtocol, hops), src...)
	}
	return append(append(head, dst...), udp...)
}

// checksum is that of RFC 1071 over all parts, which but the last have an even
// length.
func checksum(sum uint32, parts ...[]byte) uint16 {
	for _, p := range parts {
		for i := 0; i+1 < len(p); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(p[i:]))
		}
		if len(p)%2 == 1 {
			sum += uint32(p[len(p)-1]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

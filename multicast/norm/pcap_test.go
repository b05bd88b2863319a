package norm

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"
	"time"
)

// captured is a NORM message of a capture.
type captured struct {
	at   time.Time
	from netip.AddrPort
	msg  []byte
}

// readCapture reads the UDP payloads of a little-endian pcap file of Ethernet
// and IPv4.
func readCapture(t testing.TB, name string) []captured {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name + ".pcap")
	if err != nil {
		t.Fatal(err)
	}
	var out []captured
	for rest := raw[24:]; len(rest) > 0; {
		sec, usec := binary.LittleEndian.Uint32(rest), binary.LittleEndian.Uint32(rest[4:])
		n := 16 + int(binary.LittleEndian.Uint32(rest[8:]))
		ip := rest[16+14 : n]
		rest = rest[n:]
		udp := ip[int(ip[0]&15)*4:]
		out = append(out, captured{
			at:   time.Unix(int64(sec), int64(usec)*1000),
			from: netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:16])), binary.BigEndian.Uint16(udp)),
			msg:  udp[8:],
		})
	}
	return out
}

var captures = []string{"norm1", "n200", "nsmall", "ntiny"}

package steer

import (
	"encoding/hex"
	"net/netip"
	"testing"
)

// TestForge tells the fields of the headers.
func TestForge(t *testing.T) {
	for _, c := range []struct{ from, to, payload, want string }{
		{"192.0.2.1:6881", "10.0.0.9:51413", "abc", "4500000000000000401100" + "00" + "c00002010a000009" + "1ae1c8d5000b"},
		{"[2001:db8::1]:6969", "[fd00::9]:6881", "abcd", "60000000000c1140" + "20010db8000000000000000000000001" + "fd000000000000000000000000000009" + "1b391ae1000c"},
	} {
		from, to := netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to)
		got := forge(from, to, []byte(c.payload))
		head := len(got) - len(c.payload) - 2
		if hex.EncodeToString(got[:head]) != c.want || string(got[head+2:]) != c.payload {
			t.Errorf("%x, want %s", got, c.want)
		}
		// Whoever adds up everything, the checksum too, must get nothing (RFC 1071).
		udp := got[head-6:]
		if left := checksum(uint32(len(udp))+udpProtocol, from.Addr().AsSlice(), to.Addr().AsSlice(), udp); left != 0 {
			t.Errorf("%s: %04x is left", c.from, left)
		}
	}
}

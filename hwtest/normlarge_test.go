//go:build soak

package hwtest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// TestNormLargeWithLibnorm is TestNormWithLibnorm with a file of 100 MB; what is
// said is not captured, which would be 2 GB for tshark. libnorm's sender has room
// for the whole file: with less it codes again what is asked for late, each block
// 0.1 s and more with 200/40, hears nothing meanwhile, takes that for a long GRTT
// and does not recover. With 8 MiB and 2.5 s without a packet it did not serve its
// own receivers either, three times of three.
func TestNormLargeWithLibnorm(t *testing.T) {
	l := newNormLAN(t, 1, func(int) lab.LinkConfig { return lossy(0.1) })
	eachPairing(t, l, cistern(t), libnorm(t), exchange{
		group: netip.MustParseAddrPort("239.77.3.0:6300"), rateMbit: 50, files: contents(t, 100e6), timeout: 3 * time.Minute, buffer: 256 << 20,
	})
}

//go:build soak

package hwtest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// TestNormLargeWithLibnorm is TestNormWithLibnorm with a file of 100 MB; what is
// said is not captured, which would be 2 GB for tshark.
func TestNormLargeWithLibnorm(t *testing.T) {
	l := newNormLAN(t, 1, func(int) lab.LinkConfig { return lossy(0.1) })
	eachPairing(t, l, cistern(t), libnorm(t), exchange{
		group: netip.MustParseAddrPort("239.77.3.0:6300"), rateMbit: 50, files: contents(t, 100e6), timeout: 3 * time.Minute,
	})
}

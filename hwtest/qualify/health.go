package qualify

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"

	"github.com/cistern-edge/cistern/admin/client"
)

// Sizes of what disks say of themselves, in bytes.
const (
	nvmeLogBytes = 512 // SMART / Health Information, NVM Express Base 2.0 §5.16.1.3
	ataDataBytes = 512 // SMART READ DATA and READ THRESHOLDS, ATA/ATAPI-7 §6.54
)

var errNoHealth = errors.New("what the disk says of itself has a form that is not known")

// parseNVMe reads the health log of an NVMe disk.
func parseNVMe(log []byte) (client.Wear, error) {
	if len(log) < nvmeLogBytes {
		return client.Wear{}, errNoHealth
	}
	le := binary.LittleEndian
	w := client.Wear{
		Source: "nvme", PercentUsed: int(log[5]), PowerOnHours: le.Uint64(log[128:]), MediaErrors: le.Uint64(log[160:]),
		// Bit 0: spare below its threshold, 2: unreliable, 3: read-only, 4: its
		// backup of volatile memory failed. Bit 1 is temperature, which passes.
		Failing: log[0]&0b11101 != 0,
	}
	if kelvin := int(le.Uint16(log[1:])); kelvin > 0 {
		w.Celsius = kelvin - 273
	}
	return w, nil
}

// Attributes of ATA disks that are read. The standard does not number them; these
// mean the same with all who use them.
const (
	ataReallocated   = 5
	ataPowerOnHours  = 9
	ataUncorrectable = 187
	ataTemperature   = 194
	ataPending       = 197
)

// ataLifeLeft are attributes whose normalised value is the percentage of an SSD's
// life that is left, in the order in which they are believed.
var ataLifeLeft = []byte{231, 202, 233, 177, 169}

// parseATA reads the attributes of an ATA disk and the thresholds below which
// it expects to fail; thresholds may be nil.
func parseATA(data, thresholds []byte) (client.Wear, error) {
	if !summed(data) {
		return client.Wear{}, errNoHealth
	}
	w := client.Wear{Source: "ata", PercentUsed: -1}
	least := map[byte]byte{}
	if summed(thresholds) {
		for i := 2; i+12 <= 2+30*12; i += 12 {
			least[thresholds[i]] = thresholds[i+1]
		}
	}
	left := map[byte]byte{}
	for i := 2; i+12 <= 2+30*12; i += 12 {
		a := data[i : i+12]
		id, prefail, value := a[0], a[1]&1 != 0, a[3]
		raw := uint64(binary.LittleEndian.Uint32(a[5:]))
		left[id] = value
		switch id {
		case 0:
			continue
		case ataReallocated:
			w.Reallocated = raw
		case ataPowerOnHours:
			w.PowerOnHours = raw
		case ataUncorrectable:
			w.MediaErrors = raw
		case ataTemperature:
			w.Celsius = int(a[5])
		case ataPending:
			w.Pending = raw
		}
		if limit := least[id]; prefail && limit > 0 && value <= limit {
			w.Failing = true
		}
	}
	for _, id := range ataLifeLeft {
		if value, there := left[id]; there && value <= 100 {
			w.PercentUsed = 100 - int(value)
			break
		}
	}
	return w, nil
}

// summed reports whether the bytes of a sector add up to 0, as theirs do.
func summed(sector []byte) bool {
	if len(sector) != ataDataBytes {
		return false
	}
	sum, some := byte(0), byte(0)
	for _, b := range sector {
		sum, some = sum+b, some|b
	}
	return sum == 0 && some != 0
}

// parseMMC reads the life time of an eMMC (JESD84-B51 §7.4.25: tenths that are
// used, 0x0b: all) and its warning (1: none, 2: 80 % of the spare blocks, 3: 90 %).
func parseMMC(life, warning string) (client.Wear, error) {
	w := client.Wear{Source: "mmc", PercentUsed: -1}
	for _, field := range strings.Fields(life) {
		tenths, err := strconv.ParseUint(strings.TrimPrefix(field, "0x"), 16, 8)
		if err != nil || tenths > 0x0b {
			return client.Wear{}, errNoHealth
		}
		if tenths > 0 { // 0: not said
			w.PercentUsed = max(w.PercentUsed, int(min(tenths, 10))*10)
		}
		w.Failing = w.Failing || tenths == 0x0b
	}
	level, err := strconv.ParseUint(strings.TrimPrefix(warning, "0x"), 16, 8)
	w.Failing = w.Failing || err == nil && level >= 3
	return w, nil
}

package build

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/image"
)

// TestRaspberryPi looks for what the firmware of a Raspberry Pi reads, whatever
// the version of the kernel that its description came with.
func TestRaspberryPi(t *testing.T) {
	packages := map[string][]byte{}
	for from := range loaders["arm64"] {
		name := strings.ReplaceAll(from, "*", "6.1-arm64")
		packages[name] = []byte(name)
	}
	raw, err := esp("arm64", packages, epoch)
	if err != nil {
		t.Fatal(err)
	}
	volume := filepath.Join(t.TempDir(), "esp")
	if err := os.WriteFile(volume, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(volume, image.Partitions()[image.PartESP-1].Size); err != nil {
		t.Fatal(err)
	}
	tool(t, "mtype")
	for name, want := range map[string]string{
		"config.txt": string(piConfig), "u-boot.bin": "usr/lib/u-boot/rpi_arm64/u-boot.bin",
		"bcm2711-rpi-4-b.dtb":   "usr/lib/linux-image-6.1-arm64/broadcom/bcm2711-rpi-4-b.dtb",
		"EFI/BOOT/BOOTAA64.EFI": "usr/lib/shim/shimaa64.efi.signed",
	} {
		if got, err := exec.Command("mtype", "-i", volume, "::"+name).Output(); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
	delete(packages, "usr/lib/u-boot/rpi_arm64/u-boot.bin")
	if _, err := esp("arm64", packages, epoch); err == nil || !strings.Contains(err.Error(), "u-boot.bin") {
		t.Errorf("a boot loader that no package has: %v", err)
	}
}

package appliance

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// What started the machine.
const (
	firmwareBIOS   = "BIOS"
	firmwareUEFI   = "UEFI"
	firmwareSecure = "UEFI, Secure Boot"
)

// secureBootVar is the variable SecureBoot of UEFI's own namespace (UEFI 2.10
// §3.3).
const secureBootVar = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

// firmware says what started the machine. m loads the file system of UEFI's
// variables, which is let go of again.
func firmware(m *modules) string {
	const efi = "/sys/firmware/efi"
	if _, err := os.Stat(efi); err != nil {
		return firmwareBIOS
	}
	dir := filepath.Join(efi, "efivars")
	if err := m.load("efivarfs"); err != nil {
		return firmwareUEFI
	}
	if err := unix.Mount("efivarfs", dir, "efivarfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return firmwareUEFI
	}
	defer func() { _ = unix.Unmount(dir, 0) }() // it holds nothing back
	return secureBoot(filepath.Join(dir, secureBootVar))
}

// secureBoot reads the variable: four bytes of attributes, then 1 where it is on.
func secureBoot(file string) string {
	if value, err := os.ReadFile(file); err == nil && len(value) == 5 && value[4] == 1 {
		return firmwareSecure
	}
	return firmwareUEFI
}

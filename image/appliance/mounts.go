package appliance

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// defaultName is what the box is called until network.toml says otherwise.
const defaultName = "cistern"

// Mounts makes the file systems that every program expects. It is the first
// thing that PID 1 does.
func Mounts() error {
	for _, m := range []struct {
		kind, at, options string
		flags             uintptr
	}{
		{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "/sys", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"devtmpfs", "/dev", "", unix.MS_NOSUID},
		{"tmpfs", "/run", "mode=755,size=16m", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/tmp", "mode=1777,size=64m", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, m.flags, m.options); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	for file, value := range map[string]string{
		"/proc/sys/kernel/panic":                       "5",
		"/proc/sys/kernel/panic_on_oops":               "1",
		"/proc/sys/vm/panic_on_oom":                    "0",
		"/proc/sys/net/ipv4/igmp_max_memberships":      "512",
		"/proc/sys/net/core/rmem_max":                  "8388608",
		"/proc/sys/net/core/wmem_max":                  "8388608",
		"/proc/sys/net/ipv4/conf/all/send_redirects":   "0",
		"/proc/sys/net/ipv4/tcp_slow_start_after_idle": "0",
	} {
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			return fmt.Errorf("set %s: %w", file, err)
		}
	}
	return setHostname(defaultName)
}

// Reboot writes what is held back, lets go of the disk and restarts the machine.
func Reboot() error { return end(unix.LINUX_REBOOT_CMD_RESTART) }

// PowerOff does the same and turns the machine off.
func PowerOff() error { return end(unix.LINUX_REBOOT_CMD_POWER_OFF) }

func end(how int) error {
	unix.Sync()
	if err := unix.Unmount(dataDir, 0); err != nil {
		// Somebody holds a file open: read-only is as good.
		_ = unix.Mount("", dataDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	unix.Sync()
	time.Sleep(200 * time.Millisecond) // for what consoles have still to print
	return unix.Reboot(how)
}

package qualify

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/admin/client"
)

// cards lists the network cards that are measured.
func (q *Qualifier) cards() {
	all, err := net.Interfaces()
	if err != nil {
		q.log.Warn("failed to list network interfaces", "err", err)
		return
	}
	for _, i := range all {
		named := slices.Contains(q.cfg.Interfaces, i.Name)
		real := i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagUp != 0 && i.Flags&net.FlagMulticast != 0
		if named || len(q.cfg.Interfaces) == 0 && real {
			q.report.NICs = append(q.report.NICs, card(i))
		}
	}
}

// card says what the kernel knows of a network card.
func card(i net.Interface) client.NIC {
	dir := filepath.Join("/sys/class/net", i.Name)
	n := client.NIC{
		Name: i.Name, Up: read(dir+"/carrier") == "1", Duplex: read(dir + "/duplex"), Offloads: []string{},
		Errors:  uint64(number(dir + "/statistics/rx_errors")),
		Dropped: uint64(number(dir+"/statistics/rx_dropped") + number(dir+"/statistics/rx_missed_errors")),
	}
	if speed := number(dir + "/speed"); speed > 0 { // -1: unknown
		n.BitRate = speed * 1_000_000
	}
	if n.Duplex == "unknown" {
		n.Duplex = ""
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return n
	}
	defer unix.Close(fd)
	if info, err := unix.IoctlGetEthtoolDrvinfo(fd, i.Name); err == nil {
		n.Driver = strings.TrimRight(string(info.Driver[:]), "\x00")
	}
	for _, o := range []struct {
		name    string
		command uint32
	}{
		{"rx-checksum", unix.ETHTOOL_GRXCSUM},
		{"tx-checksum", unix.ETHTOOL_GTXCSUM},
		{"scatter-gather", unix.ETHTOOL_GSG},
		{"tso", unix.ETHTOOL_GTSO},
		{"gso", unix.ETHTOOL_GGSO},
		{"gro", unix.ETHTOOL_GGRO},
	} {
		if offload(fd, i.Name, o.command) {
			n.Offloads = append(n.Offloads, o.name)
		}
	}
	return n
}

// offload asks whether one is on (struct ethtool_value).
func offload(fd int, name string, command uint32) bool {
	value := struct{ command, data uint32 }{command: command}
	request := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	return errno == 0 && value.data != 0
}

// steps are the parts of the measurement, with what each takes at most.
func (q *Qualifier) steps() ([]step, error) {
	if q.cfg.Erase != "" { // before a minute has passed with all the rest
		f, err := claim(q.cfg.Erase)
		if err != nil {
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("erase: %w", err)
		}
	}
	q.cards()
	steps := []step{
		{"processor", 3 * q.budget.hash, q.processor},
		{"clock", 0, q.clock},
		{"random numbers", 0, q.random},
		{"watchdog", 0, q.watchdog},
		{"memory", q.budget.memory, q.memory},
	}
	for i := range q.report.NICs {
		n := &q.report.NICs[i]
		steps = append(steps,
			step{"multicast on " + n.Name, q.budget.multicast + q.cfg.Wire, func(ctx context.Context) { q.multicast(ctx, n) }},
			step{"querier on " + n.Name, q.budget.queriers, func(ctx context.Context) { q.querier(ctx, n) }})
	}
	return append(steps,
		step{"disk", 5*q.budget.disk + q.budget.capacity, q.disk},
		step{"heat", q.budget.soak, q.soak}), nil
}

// whole is what all of it takes at most.
func (q *Qualifier) whole() (whole time.Duration) {
	b := q.budget
	return 3*b.hash + b.memory + time.Duration(len(q.report.NICs))*(b.multicast+q.cfg.Wire+b.queriers) + 5*b.disk + b.capacity + b.soak
}

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// threadNet names the network namespace of the calling thread.
const threadNet = "/proc/thread-self/ns/net"

// namespace is a network namespace without a name: it ends when this process
// has closed it and nothing inside has an open socket or runs.
type namespace struct {
	file *os.File
	fd   int
	nl   *netlink.Handle
}

func newNamespace() (*namespace, error) {
	type made struct {
		file *os.File
		err  error
	}
	result := make(chan made, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- made{err: fmt.Errorf("unshare network namespace: %w", err)}
			return
		}
		file, err := os.Open(threadNet)
		result <- made{file, err}
	}()
	m := <-result
	if m.err != nil {
		return nil, m.err
	}
	fd := int(m.file.Fd())
	nl, err := netlink.NewHandleAt(netns.NsHandle(fd), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink in namespace: %w", err), m.file.Close())
	}
	return &namespace{file: m.file, fd: fd, nl: nl}, nil
}

func (n *namespace) close() error {
	n.nl.Close()
	return n.file.Close()
}

// do runs f on the calling goroutine, its thread moved into n meanwhile. Calls
// nest.
func (n *namespace) do(f func() error) (err error) {
	runtime.LockOSThread()
	before, err := os.Open(threadNet)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer before.Close()
	if err := n.enter(); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		if back := unix.Setns(int(before.Fd()), unix.CLONE_NEWNET); back != nil {
			// The thread stays locked, and so dies with the goroutine.
			err = errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// enter moves the calling thread, which must be locked, into n.
func (n *namespace) enter() error {
	raw, err := n.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.Setns(int(fd), unix.CLONE_NEWNET) })
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}

// sysctl writes a value below /proc/sys as seen from inside n.
func (n *namespace) sysctl(key, value string) error {
	return n.do(func() error {
		if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0o644); err != nil {
			return fmt.Errorf("set sysctl %s: %w", key, err)
		}
		return nil
	})
}

// prepare gives n a loopback and addresses that are usable at once.
func (n *namespace) prepare() error {
	for _, s := range [][2]string{
		// Frames of one flow stay on one CPU, hence in order, as on a real
		// switch (since Linux 6.3; before, a busy machine reorders some).
		{"net/core/rps_default_mask", allCPUs(runtime.NumCPU())},
		{"net/ipv4/conf/all/rp_filter", "0"},
		{"net/ipv4/conf/default/rp_filter", "0"},
		{"net/ipv4/conf/all/send_redirects", "0"},
		{"net/ipv4/conf/default/send_redirects", "0"},
		{"net/ipv4/ip_unprivileged_port_start", "0"},
		{"net/ipv4/igmp_max_memberships", "1024"},
		{"net/ipv4/igmp_max_msf", "1024"},
		{"net/ipv4/tcp_no_metrics_save", "1"},
		{"net/ipv6/conf/all/disable_ipv6", "0"},
		{"net/ipv6/conf/default/disable_ipv6", "0"},
		{"net/ipv6/conf/all/accept_dad", "0"},
		{"net/ipv6/conf/default/accept_dad", "0"},
		{"net/ipv6/conf/default/accept_ra", "0"},
		{"net/ipv6/conf/default/router_solicitations", "0"},
		{"net/bridge/bridge-nf-call-iptables", "0"},
		{"net/bridge/bridge-nf-call-ip6tables", "0"},
		{"net/bridge/bridge-nf-call-arptables", "0"},
	} {
		// What this kernel has not got cannot stand in the way.
		if err := n.sysctl(s[0], s[1]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	lo, err := n.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := n.nl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	return nil
}

// allCPUs is a mask of n CPUs as the kernel reads it: hexadecimal words of 32
// bits with commas between them.
func allCPUs(n int) string {
	mask := fmt.Sprintf("%x", uint64(1)<<(n%32)-1)
	for ; n >= 32; n -= 32 {
		mask += ",ffffffff"
	}
	return mask
}

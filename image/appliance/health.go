package appliance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How often the health is looked at, before and after it was first found.
const (
	eager   = 250 * time.Millisecond
	settled = 10 * time.Second
)

// stuck is how long a look may take before the watchdog is left to bite: a disk
// or a program that hangs is cured by a restart or by the other slot.
const stuck = 2 * time.Minute

// judge watches whether the system works. One on trial is committed when it
// does, and left when it has not in time; the time that the check of the data
// takes is not its own, and has a bound of its own.
func (b *Box) judge(ctx context.Context) {
	began := time.Now()
	deadline := began.Add(b.cfg.Patience)
	joined := false
	for pending := b.boot.OnTrial(); ; {
		missing := b.missing(ctx)
		if missing == "" && !joined {
			if err := joinGroups(); err != nil {
				missing = "multicast: " + err.Error()
			}
			joined = missing == ""
		}
		if pause(ctx, 0) {
			return
		}
		b.judged.Store(int64(time.Since(b.started)))
		b.found(missing)
		switch {
		case b.checking.Load() && time.Since(began) < 2*checkTime: // a disk that hangs cannot be called off
			deadline = time.Now().Add(b.cfg.Patience)
		case pending && missing == "":
			pending = !b.commit()
		case pending && time.Now().After(deadline):
			if b.giveUp(missing) {
				return
			}
			pending = false
		}
		rest := eager
		if missing == "" && !pending {
			rest = settled
		}
		if pause(ctx, rest) {
			return
		}
	}
}

// alive says whether the health is still being judged.
func (b *Box) alive() bool {
	return time.Since(b.started)-time.Duration(b.judged.Load()) < stuck
}

// found notes what the system lacks.
func (b *Box) found(missing string) {
	if b.State().Waiting == missing {
		return
	}
	b.wait(missing)
	if missing != "" {
		if b.mounted.Load() { // else there is nowhere to note it
			b.stage("waiting for " + missing)
		}
		return
	}
	seconds := uptime()
	b.mu.Lock()
	if b.readyIn == 0 {
		b.readyIn = seconds
	}
	b.mu.Unlock()
	b.log.Info("works", "seconds_after_kernel", seconds, "stages", b.reached("proxy"), "addresses", b.net.addresses())
}

// reached notes when a stage of the start was come to, the first time, and gives
// all so far.
func (b *Box) reached(stage string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !strings.Contains(b.stages, stage) {
		b.stages = strings.TrimSpace(fmt.Sprintf("%s %s=%.1f", b.stages, stage, uptime()))
	}
	return b.stages
}

// uptime is the time since the kernel's start, in seconds.
func uptime() float64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return float64(t.Nano()) / 1e9
}

// missing names the first thing that a working system has and this one lacks.
func (b *Box) missing(ctx context.Context) string {
	if b.checking.Load() {
		return "the check of the data, which may take minutes on a large disk"
	}
	if why := b.absence(); why != "" {
		return why
	}
	var data, root unix.Stat_t
	if errors.Join(unix.Stat(dataDir, &data), unix.Stat("/", &root)) != nil || data.Dev == root.Dev {
		return "the data partition"
	}
	b.reached("data")
	if err := b.net.ready(); err != nil {
		return err.Error()
	}
	b.reached("network")
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.cfg.Health+"/", nil)
	if err != nil {
		return err.Error()
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}}
	resp, err := client.Do(req)
	if err != nil {
		return "an answer of the proxy"
	}
	if err := resp.Body.Close(); err != nil {
		return "an answer of the proxy"
	}
	return ""
}

// probeGroup is joined and left to see whether that works: administratively
// scoped (RFC 2365 §6.1), and used by nobody.
var probeGroup = net.IPv4(239, 255, 67, 83)

// joinGroups joins a group on every interface with an address and sees whether a
// datagram to it comes in there.
func joinGroups() error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range interfaces {
		const able = net.FlagUp | net.FlagRunning | net.FlagMulticast
		addrs, err := i.Addrs()
		if err != nil || i.Flags&able != able || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil {
				if err := joinGroup(i); err != nil {
					return fmt.Errorf("a group on %s: %w", i.Name, err)
				}
				break
			}
		}
	}
	return nil
}

func joinGroup(on net.Interface) error {
	in, err := net.ListenMulticastUDP("udp4", &on, &net.UDPAddr{IP: probeGroup})
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return err
	}
	defer out.Close()
	raw, err := out.SyscallConn()
	if err != nil {
		return err
	}
	var fault error
	err = raw.Control(func(fd uintptr) {
		fault = errors.Join(unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(on.Index)}),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 0)) // it does not leave the machine
	})
	if err = errors.Join(err, fault); err != nil {
		return err
	}
	to := &net.UDPAddr{IP: probeGroup, Port: in.LocalAddr().(*net.UDPAddr).Port}
	if _, err := out.WriteToUDP([]byte("probe"), to); err != nil {
		return err
	}
	if err := in.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, _, err = in.ReadFromUDP(make([]byte, 16))
	return err
}

// meminfo is what the kernel says of its memory, in bytes; 0 if it says nothing.
func meminfo(what string) int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if _, err := fmt.Sscanf(line, what+": %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}

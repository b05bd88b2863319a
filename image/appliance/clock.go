package appliance

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// defaultTime is asked where neither network.toml nor DHCP names a server.
const defaultTime = "pool.ntp.org"

// How often servers of time are asked: at first, later if none answers, and once
// one has.
const (
	timeless = 5 * time.Second
	hopeless = 5 * time.Minute
	timely   = time.Hour
)

// keepTime sets the clock by NTP until ctx is done.
func (b *Box) keepTime(ctx context.Context, fixed []string) {
	for rest := timeless; ; rest = min(2*rest, hopeless) {
		wait := rest
		for _, server := range b.net.timeServers(fixed) {
			offset, err := askTime(ctx, server)
			if err == nil {
				err = setClock(offset)
			}
			if err != nil {
				b.log.Debug("got no time", "server", server, "err", err)
				continue
			}
			if b.State().TimeFrom != server {
				b.log.Info("set the clock", "server", server, "offset", offset)
			}
			b.mu.Lock()
			b.timeFrom = server
			b.mu.Unlock()
			wait, rest = timely, timeless
			break
		}
		if pause(ctx, wait) {
			return
		}
	}
}

// timePacket is the length of an NTP packet without extensions, in bytes.
const timePacket = 48

// ntpEpoch is 1900-01-01 in Unix seconds.
const ntpEpoch = -2208988800

// ErrTime says that what a server of time answered is none.
var ErrTime = errors.New("no valid answer of a server of time")

// askTime asks one server how far this machine's clock is behind (RFC 5905,
// client mode).
func askTime(ctx context.Context, server string) (time.Duration, error) {
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(server, "123")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", server)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	// The transmit timestamp is a nonce: it comes back, and tells a server nothing.
	query := make([]byte, timePacket)
	query[0] = 4<<3 | 3
	_, _ = rand.Read(query[40:]) // it never fails
	sent := time.Now()
	if _, err := conn.Write(query); err != nil {
		return 0, err
	}
	answer := make([]byte, 128)
	n, err := conn.Read(answer)
	if err != nil {
		return 0, err
	}
	return timeOffset(query, answer[:n], sent, time.Now())
}

// timeOffset reads an answer: RFC 5905 §8.
func timeOffset(query, answer []byte, sent, received time.Time) (time.Duration, error) {
	if len(answer) < timePacket {
		return 0, fmt.Errorf("%w: %d bytes", ErrTime, len(answer))
	}
	leap, mode, stratum := answer[0]>>6, answer[0]&7, answer[1]
	if mode != 4 || leap == 3 || stratum == 0 || stratum > 15 || string(answer[24:32]) != string(query[40:48]) {
		return 0, fmt.Errorf("%w: mode %d, leap %d, stratum %d", ErrTime, mode, leap, stratum)
	}
	arrived, left := ntpTime(answer[32:]), ntpTime(answer[40:])
	if left.Before(arrived) || left.Year() < 2026 {
		return 0, fmt.Errorf("%w: %v", ErrTime, left)
	}
	// The middle of the two ways, the wall clock's own jump left out.
	way := received.Sub(sent) - left.Sub(arrived)
	return left.Add(way / 2).Sub(received.Round(0)), nil
}

// ntpTime reads a timestamp, of era 0 or, from 2036 on, of era 1.
func ntpTime(b []byte) time.Time {
	seconds, fraction := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	if seconds < 1<<31 {
		seconds += 1 << 32
	}
	return time.Unix(seconds+ntpEpoch, fraction*int64(time.Second)>>32)
}

// slewed is the most that the clock is led to by running faster or slower.
const slewed = 100 * time.Millisecond

// setClock sets the system's clock, and the machine's where it has one.
func setClock(offset time.Duration) error {
	if offset.Abs() <= slewed {
		_, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_OFFSET_SINGLESHOT, Offset: offset.Microseconds()})
		return err
	}
	now := time.Now().Add(offset)
	t := unix.NsecToTimespec(now.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &t); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	rtc, err := os.OpenFile("/dev/rtc0", os.O_WRONLY, 0)
	if err != nil {
		return nil // a board without one
	}
	defer rtc.Close()
	u := now.UTC()
	_ = unix.IoctlSetRTCTime(int(rtc.Fd()), &unix.RTCTime{ // one that cannot be set is as good as none
		Sec: int32(u.Second()), Min: int32(u.Minute()), Hour: int32(u.Hour()),
		Mday: int32(u.Day()), Mon: int32(u.Month()) - 1, Year: int32(u.Year()) - 1900,
	})
	return nil
}

// noEarlier moves a clock that stands before the last start, as it does on
// boards without a battery, to that.
func noEarlier(file string) error {
	info, err := os.Stat(file)
	if err != nil || !time.Now().Before(info.ModTime()) {
		return nil // a first start, or a clock that goes
	}
	return setClock(time.Until(info.ModTime()))
}

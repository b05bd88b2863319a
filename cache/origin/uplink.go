package origin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Modes of an Uplink.
const (
	OfflineAuto = "auto" // found out; "" as well
	OfflineOn   = "on"   // always down: nothing outside is asked
	OfflineOff  = "off"  // never down: every request takes the time that it takes
)

const (
	// suspectDial and suspectHead are how long a connection and the head of an
	// answer may take before the uplink is doubted.
	suspectDial = 2 * time.Second
	suspectHead = 5 * time.Second
	// trial is how long a host that was not heard of may take while the uplink is
	// down, and each host that is probed.
	trial = 3 * time.Second
	// shun is how long a host that failed its trial is not tried again, forget how
	// long it says something about the uplink.
	shun, forget = 10 * time.Second, time.Minute
	// calm is how often the uplink is probed at most while it is up, probeMin and
	// probeMax how often while it is down.
	calm               = 5 * time.Second
	probeMin, probeMax = 2 * time.Second, 8 * time.Second
	// witnesses is how many hosts that answered and that failed are probed, maxBad
	// how many that failed are remembered.
	witnesses = 4
	maxBad    = 1000
)

// OfflineError says that a request was not sent, or not waited for: the uplink
// is down.
type OfflineError struct {
	// Since is when that was noticed.
	Since time.Time
	// Why says what showed it.
	Why string
}

// Error says since when, in local time.
func (e *OfflineError) Error() string {
	return "the uplink is down since " + e.Since.Format("2006-01-02 15:04:05") + ": " + e.Why
}

// Uplink is a Dialer that knows whether the outside can be reached. It is down
// when no host answers of those that answered last and of those that just failed,
// which it probes as soon as a connection fails or takes long; it asks nobody
// whom no client asked for. While it is down, requests to hosts that failed end
// at once, one to another host is given a moment, and the first host that answers
// brings it up. Hosts on the LAN are neither evidence nor held up. Safe for
// concurrent use.
type Uplink struct {
	mode  string
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	log   *slog.Logger
	near  func(netip.Addr) bool
	doubt chan struct{} // holds one

	// mu guards what follows.
	mu     sync.Mutex
	down   *OfflineError   // nil: it is up
	online context.Context // ends when it falls
	fall   context.CancelCauseFunc
	falls  int64
	heard  time.Time            // when a host outside answered last
	good   []string             // hosts that answered, the last first
	bad    map[string]time.Time // hosts that did not, and when
}

// NewUplink builds an Uplink that dials as dialer does; it connects to nothing.
// near tells addresses of the LAN. The mode is one of those above.
func NewUplink(mode string, dialer *Dialer, near func(netip.Addr) bool, log *slog.Logger) *Uplink {
	d := *dialer
	u := &Uplink{mode: mode, dial: d.DialContext, log: log, near: near, doubt: make(chan struct{}, 1), bad: map[string]time.Time{}}
	u.online, u.fall = context.WithCancelCause(context.Background())
	if mode == OfflineOn {
		u.down = &OfflineError{Since: time.Now(), Why: "the configuration says so (origin.offline)"}
		d.also = func(a netip.Addr) error {
			if near(a) {
				return nil
			}
			return u.down // never changes
		}
	}
	return u
}

// Down tells why nothing outside can be reached, nil if it can. A nil Uplink is
// never down.
func (u *Uplink) Down() *OfflineError {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.down
}

// UplinkStats are the figures of an Uplink since it was made.
type UplinkStats struct {
	// Down is 1 while it is.
	Down int `json:"down"`
	// Falls counts how often it went down.
	Falls int64 `json:"falls"`
}

// Stats gives a snapshot.
func (u *Uplink) Stats() UplinkStats {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := UplinkStats{Falls: u.falls}
	if u.down != nil {
		s.Down = 1
	}
	return s
}

// DialContext connects as Dialer.DialContext does. The error wraps *OfflineError
// if the uplink is down.
func (u *Uplink) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if err := u.Refuse(address); err != nil {
		return nil, err
	}
	asked := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if u.Down() != nil {
		ctx, cancel = context.WithTimeout(ctx, trial)
		defer cancel()
	}
	ctx, end := u.while(ctx, address, suspectDial)
	defer end()
	conn, err := u.dial(ctx, network, address)
	if asked.Err() == nil { // or nothing was learnt
		u.learn(address, conn, err)
	}
	if down := u.Down(); err != nil && down != nil && doubtful(err) {
		return nil, down
	}
	return conn, err
}

// Refuse is the error for a host that need not be tried now, nil for one that may
// answer. A nil Uplink refuses nothing.
func (u *Uplink) Refuse(address string) error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if at, ok := u.bad[address]; ok && u.down != nil && time.Since(at) < shun {
		return u.down
	}
	return nil
}

// while is ctx until the uplink falls, if it is up; if the host takes longer than
// the patience it is doubted. end leaves ctx alone from then on.
func (u *Uplink) while(ctx context.Context, address string, patience time.Duration) (_ context.Context, end func()) {
	u.mu.Lock()
	online, down := u.online, u.down
	u.mu.Unlock()
	if down != nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(online, func() { cancel(context.Cause(online)) })
	late := time.AfterFunc(patience, func() { u.suspect(address) })
	return ctx, func() { stop(); late.Stop() }
}

// back waits for an uplink that is down; it reports whether it is up.
func (u *Uplink) back(ctx context.Context, patience time.Duration) bool {
	for end := time.Now().Add(patience); u.Down() != nil; {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(250 * time.Millisecond):
		}
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// suspect notes a host that did not answer, and has the uplink probed.
func (u *Uplink) suspect(address string) {
	u.mu.Lock()
	if _, known := u.bad[address]; known || len(u.bad) < maxBad {
		u.bad[address] = time.Now()
	}
	u.mu.Unlock()
	select {
	case u.doubt <- struct{}{}:
	default:
	}
}

// learn takes note of how a connection to a host went.
func (u *Uplink) learn(address string, conn net.Conn, err error) {
	var op *net.OpError
	switch {
	case conn != nil:
		u.answered(address, conn.RemoteAddr())
	case (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)) && errors.As(err, &op):
		u.answered(address, op.Addr) // somebody is there
	case doubtful(err) && !(errors.As(err, &op) && u.isNear(op.Addr)):
		u.suspect(address)
	}
}

// isNear reports whether an address is one of the LAN.
func (u *Uplink) isNear(a net.Addr) bool {
	if a == nil {
		return false
	}
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && u.near(ap.Addr().Unmap())
}

// doubtful reports whether an error of a connection can be the uplink's fault.
func doubtful(err error) bool {
	var refused *RefusedError
	var dns *net.DNSError
	switch {
	case errors.As(err, &refused):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	}
	return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET)
}

// answered takes note of a host that answered from an address.
func (u *Uplink) answered(address string, from net.Addr) {
	if from == nil || u.isNear(from) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.heard = time.Now()
	delete(u.bad, address)
	u.good = slices.DeleteFunc(u.good, func(other string) bool { return other == address })
	u.good = slices.Insert(u.good, 0, address)
	u.good = u.good[:min(len(u.good), witnesses)]
	if u.down != nil && u.mode != OfflineOn {
		u.log.Info("uplink returned", "source", address, "took", time.Since(u.down.Since))
		u.down = nil
		u.online, u.fall = context.WithCancelCause(context.Background())
	}
}

// Run probes the uplink when it is doubted, and until it returns.
func (u *Uplink) Run(ctx context.Context) error {
	if u.mode == OfflineOn || u.mode == OfflineOff {
		<-ctx.Done()
		return nil
	}
	rest := probeMin
	for {
		var again <-chan time.Time
		if u.Down() != nil {
			again = time.After(rest)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-u.doubt:
		case <-again:
			rest = min(rest*3/2, probeMax)
		}
		u.probe(ctx)
		if u.Down() != nil {
			continue
		}
		rest = probeMin
		select {
		case <-ctx.Done():
		case <-time.After(calm):
		}
	}
}

// probe asks hosts whether they are there, all at once; if none is, the uplink is
// down.
func (u *Uplink) probe(ctx context.Context) {
	began := time.Now()
	hosts := u.suspects()
	ctx, cancel := context.WithTimeout(ctx, trial)
	defer cancel()
	failed := make(chan error, len(hosts))
	for _, host := range hosts {
		go func() {
			conn, err := u.dial(ctx, "tcp", host)
			if conn != nil {
				defer conn.Close()
			}
			if !errors.Is(ctx.Err(), context.Canceled) {
				u.learn(host, conn, err)
			}
			if u.heardSince(began) {
				cancel() // one is enough
			}
			failed <- err
		}()
	}
	var last error
	for range hosts {
		if err := <-failed; err != nil && !errors.Is(err, context.Canceled) {
			last = err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	select {
	case <-u.doubt: // raised by this very probe
	default:
	}
	if u.down != nil || len(hosts) == 0 || !u.heard.Before(began) || errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	u.down = &OfflineError{Since: time.Now(), Why: fmt.Sprintf("none of the hosts asked last answers (%d tried: %v)", len(hosts), last)}
	u.falls++
	u.fall(u.down)
	u.log.Warn("uplink was lost", "err", u.down.Why)
}

// heardSince reports whether a host outside has answered since then.
func (u *Uplink) heardSince(at time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.heard.Before(at)
}

// suspects are the hosts to probe: those that answered last, and those that just
// did not.
func (u *Uplink) suspects() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	hosts := slices.Clone(u.good)
	now := time.Now()
	maps.DeleteFunc(u.bad, func(_ string, at time.Time) bool { return now.Sub(at) > forget })
	lately := slices.SortedFunc(maps.Keys(u.bad), func(a, b string) int { return u.bad[b].Compare(u.bad[a]) })
	for _, host := range lately[:min(len(lately), witnesses)] {
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
)

// Config says how to make a Lab. The zero value is valid.
type Config struct {
	// Dir takes the output of processes and the hosts file. Empty: a directory
	// of the lab's own, removed by Close.
	Dir string
	// Nameserver is what the processes of all hosts find in /etc/resolv.conf.
	// Empty: none (names of lab hosts resolve through /etc/hosts all the same).
	Nameserver string
}

// Validate reports every fault of c at once, each naming its field.
func (c Config) Validate() error {
	if c.Nameserver == "" {
		return nil
	}
	if _, err := netip.ParseAddr(c.Nameserver); err != nil {
		return inField("Nameserver", err)
	}
	return nil
}

// Lab is a set of hosts, routers and switches with one lifetime. Its methods may
// be called from any goroutine; the building ones follow the rule of the package
// comment: the first fault sticks and Up returns it.
type Lab struct {
	log    *slog.Logger
	dir    string
	ownDir bool

	mu       sync.Mutex // guards all below
	err      error      // first fault while building
	closed   bool
	hosts    map[string]*Host
	switches map[string]*Switch
	links    []*Link
	closers  []func() error // run by Close, last first
	serial   int
	files    map[string]string // that processes see: path to source
}

// New makes an empty lab. It touches nothing but its directory. The caller
// closes it.
func New(cfg Config, log *slog.Logger) (*Lab, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("lab config: %w", err)
	}
	l := &Lab{log: log, dir: cfg.Dir, hosts: map[string]*Host{}, switches: map[string]*Switch{}, files: map[string]string{}}
	if l.dir == "" {
		dir, err := os.MkdirTemp("", "lab-")
		if err != nil {
			return nil, fmt.Errorf("make lab directory: %w", err)
		}
		l.dir, l.ownDir = dir, true
	}
	resolv := "# no nameserver in this lab\n"
	if cfg.Nameserver != "" {
		resolv = "nameserver " + cfg.Nameserver + "\n"
	}
	err := errors.Join(
		os.WriteFile(l.hostsFile(), []byte("127.0.0.1 localhost\n::1 localhost\n"), 0o644),
		os.WriteFile(l.resolvFile(), []byte(resolv), 0o644))
	if err != nil {
		return nil, fmt.Errorf("write lab directory: %w", err)
	}
	l.Show(l.hostsFile(), "/etc/hosts")
	l.Show(l.resolvFile(), "/etc/resolv.conf")
	return l, nil
}

// Show lets the processes that are started from now on see a file in place of
// another, such as a bundle of certificate authorities of the lab's own. A path
// that this machine has no file at stays as it is.
func (l *Lab) Show(source, path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files[path] = source
}

// shown gives what Show was told.
func (l *Lab) shown() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.files)
}

// Dir is where the output of processes goes.
func (l *Lab) Dir() string { return l.dir }

func (l *Lab) hostsFile() string  { return filepath.Join(l.dir, "hosts") }
func (l *Lab) resolvFile() string { return filepath.Join(l.dir, "resolv.conf") }

// Up waits until every link is up at both ends, every address is usable and
// every snooping switch with a querier keeps groups from non-members. It returns
// the first fault of building, or what was not ready when ctx ended.
func (l *Lab) Up(ctx context.Context) error {
	l.mu.Lock()
	err := l.err
	links := append([]*Link(nil), l.links...)
	if err == nil && l.closed {
		err = errors.New("lab is closed")
	}
	switches := make([]*Switch, 0, len(l.switches))
	for _, s := range l.switches {
		switches = append(switches, s)
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	for _, link := range links {
		if err := link.waitUp(ctx); err != nil {
			return err
		}
	}
	for _, s := range switches {
		if err := s.waitSnooping(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close stops all processes and watches, ends the wires and gives up the
// namespaces; the kernel removes what was in them. A socket or connection that
// the caller made and did not close keeps its namespace until it is closed. What
// is called later fails; what still runs elsewhere must have ended before.
func (l *Lab) Close() error {
	l.mu.Lock()
	closers := l.closers
	l.closers, l.closed = nil, true
	l.mu.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	if l.ownDir {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}

// build runs one building step unless an earlier one failed, and keeps its fault.
func (l *Lab) build(what string, step func() error) {
	l.mu.Lock()
	skip := l.err != nil
	if l.closed && !skip {
		l.err, skip = fmt.Errorf("%s: lab is closed", what), true
	}
	l.mu.Unlock()
	if skip {
		return
	}
	if err := step(); err != nil {
		l.mu.Lock()
		if l.err == nil {
			l.err = fmt.Errorf("%s: %w", what, err)
		}
		l.mu.Unlock()
	}
}

// onClose has f run by Close. On a closed lab it runs f at once.
func (l *Lab) onClose(f func() error) {
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.closers = append(l.closers, f)
	}
	l.mu.Unlock()
	if closed {
		if err := f(); err != nil {
			l.log.Warn("late close failed", "err", err)
		}
	}
}

// alive guards what works on namespaces after building: those of a closed lab
// are gone.
func (l *Lab) alive() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("lab is closed")
	}
	return nil
}

// next numbers things within the lab, from 1.
func (l *Lab) next() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serial++
	return l.serial
}

// newNamespace makes a namespace that Close gives up.
func (l *Lab) newNamespace() (*namespace, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	l.onClose(ns.close)
	return ns, ns.prepare()
}

// lookup resolves the name of a host of this lab.
func (l *Lab) lookup(name string) []netip.Addr {
	l.mu.Lock()
	h := l.hosts[name]
	l.mu.Unlock()
	if h == nil {
		return nil
	}
	return h.Addrs()
}

// publish adds an address to the hosts file that processes see.
func (l *Lab) publish(name string, addr netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, err := os.OpenFile(l.hostsFile(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open hosts file: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s %s\n", addr, name)
	return errors.Join(err, f.Close())
}

// Addrs lists n addresses with their prefix length, starting at the one given,
// in the form that LinkConfig.Addrs takes: Addrs("198.51.100.20/24", 60). It
// returns the text alone, for Join to complain about, if it is no prefix.
func Addrs(first string, n int) []string {
	p, err := netip.ParsePrefix(first)
	if err != nil {
		return []string{first}
	}
	out := make([]string, 0, n)
	for a := p.Addr(); len(out) < n; a = a.Next() {
		out = append(out, netip.PrefixFrom(a, p.Bits()).String())
	}
	return out
}

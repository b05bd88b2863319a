package appliance

import (
	"context"
	"net"
	"slices"
	"sync"

	"github.com/brutella/dnssd"
)

// announce lets browsers find the box by name (RFC 6762) and lists its panel
// (RFC 6763), until ctx is done: on the interfaces that have an address, and not
// on one that only carries a VLAN. A second box of the same name gets another one.
func (b *Box) announce(ctx context.Context, name string) {
	for {
		wait := eager
		if on := addressed(); len(on) > 0 {
			if err := respond(ctx, name, on); err != nil && ctx.Err() == nil {
				b.log.Error("failed to announce the name", "name", name, "err", err)
				wait = 30 * timeless
			}
		}
		if pause(ctx, wait) {
			return
		}
	}
}

// respond announces on these interfaces as long as they are those with addresses.
func respond(ctx context.Context, name string, on []string) error {
	service, err := dnssd.NewService(dnssd.Config{Name: "Cistern", Type: "_http._tcp", Host: name, Port: 80, Ifaces: on})
	if err != nil {
		return err
	}
	responder, err := dnssd.NewResponder()
	if err != nil {
		return err
	}
	if _, err := responder.Add(service); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		defer cancel()
		for slices.Equal(on, addressed()) {
			if pause(ctx, settled) {
				return
			}
		}
	})
	if err := responder.Respond(ctx); ctx.Err() == nil {
		return err
	}
	return nil
}

// addressed are the interfaces under whose addresses the box can be reached.
func addressed() (names []string) {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range all {
		if addrs, err := i.Addrs(); err == nil && slices.ContainsFunc(addrs, reachable) {
			names = append(names, i.Name)
		}
	}
	return names
}

// reachable reports whether an address is one that others can use.
func reachable(a net.Addr) bool {
	ip, ok := a.(*net.IPNet)
	return ok && ip.IP.IsGlobalUnicast()
}

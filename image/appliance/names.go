package appliance

import (
	"context"

	"github.com/brutella/dnssd"
)

// announce lets browsers find the box by name (RFC 6762) and lists its panel
// (RFC 6763), until ctx is done. A second box of the same name gets another one.
func (b *Box) announce(ctx context.Context, name string) {
	for b.net.ready() != nil {
		if pause(ctx, eager) {
			return
		}
	}
	for {
		if err := respond(ctx, name); ctx.Err() != nil {
			return
		} else if err != nil {
			b.log.Error("failed to announce the name", "name", name, "err", err)
		}
		if pause(ctx, 30*timeless) {
			return
		}
	}
}

func respond(ctx context.Context, name string) error {
	service, err := dnssd.NewService(dnssd.Config{Name: "Cistern", Type: "_http._tcp", Host: name, Port: 80})
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
	return responder.Respond(ctx)
}

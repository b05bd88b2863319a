package multicast

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/cistern-edge/cistern/cache"
)

// TestSpoiltDataComesByHTTP has a host send the box's own data packets with
// other bytes in them, as anybody on an ASM group can. DATA is not signed; the
// layer finds the blocks.
func TestSpoiltDataComesByHTTP(t *testing.T) {
	story(t, 4<<20, CasterConfig{Mode: ASM}, func(t *testing.T, b *box, info cache.Info, data []byte) {
		one, two := b.agent(0, 0, data), b.agent(1, 0, data)
		mallory := b.hub.host("10.0.0.66", 0, 9)
		run(t, func(ctx context.Context) error {
			return spoil(ctx, mallory, netip.AddrPortFrom(first(b.caster.pick(info.ID)), 6003))
		})
		synctest.Wait()
		together(t, data, one, two)
		if n, st := one.repair.Load(), one.catcher.Stats(); n == 0 || n > 2<<20 || st.Refuted == 0 {
			t.Errorf("%d of %d bytes came by HTTP, want the spoilt blocks: %+v", n, info.Size, st)
		}
	})
}

func first[A, B any](a A, _ B) A { return a }

// spoil repeats a data packet of a group, with other bytes in it, as a symbol
// that has yet to come.
func spoil(ctx context.Context, host *hubHost, group netip.AddrPort) error {
	rx, err := host.join("lan", group, nil, socketOptions{})
	if err != nil {
		return err
	}
	tx, err := host.transmit("lan", group.Addr(), socketOptions{})
	if err != nil {
		return err
	}
	defer tx.close()
	p := startPump(rx, 8, 0)
	defer p.stop(rx)
	for seen := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case b := <-p.full:
			for _, got := range b.packets {
				const data = 2
				if seen++; got.data[0]&15 != data || seen != 100 {
					continue
				}
				forged := slices.Clone(got.data)
				forged[19] += 20 // encoding_symbol_id
				forged[len(forged)-1] ^= 0xff
				if err := tx.send([][]byte{forged}, group); err != nil {
					return err
				}
			}
			p.free <- b
		}
	}
}

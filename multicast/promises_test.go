package multicast

import (
	"context"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/content/contenttest"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// onAir is a cast as a Source: the session begins when it is asked.
type onAir struct {
	content.Source
	b   *box
	num uint64
	to  norm.NodeID
}

func (s onAir) Fill(ctx context.Context, sink content.Sink) error {
	if err := s.b.caster.Cast(context.Background(), s.num, s.to); err != nil {
		return err
	}
	return s.Source.Fill(ctx, sink)
}

// aired puts data on a LAN without loss, in real time.
func aired(t *testing.T, data []byte) onAir {
	t.Helper()
	store := openStore(t)
	info := keep(t, store, page, data, true)
	b := newBox(t, store, CasterConfig{Lead: 50 * time.Millisecond, Rate: 1e9})
	a := b.agent(0, 0, data)
	return onAir{a.catcher.Source(info.ID), b, info.Num, a.line.Node()}
}

func TestSourcePromises(t *testing.T) {
	t.Parallel() // it runs in real time and mostly waits
	contenttest.Run(t, func(t *testing.T, data []byte) content.Source { return aired(t, data) })
	contenttest.RunUnsized(t, func(t *testing.T, data []byte) content.Source {
		if len(data) == 0 {
			return newBox(t, openStore(t), CasterConfig{}).agent(0, 0, nil).catcher.Source(content.ID{})
		}
		return aired(t, data)
	})
	contenttest.RunAbsent(t, func(t *testing.T) content.Source {
		b := newBox(t, openStore(t), CasterConfig{})
		id := content.ID{Root: content.Hash{1}, Size: 2 << 20}
		return b.agentWith(CatcherConfig{NoticeWait: 50 * time.Millisecond}, 0, 0, nil).catcher.Source(id)
	})
}

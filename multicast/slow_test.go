package multicast

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/content/contenttest"
)

// slowSink is a sink whose disk makes its Source wait once.
type slowSink struct {
	content.Sink
	once sync.Once
	wait time.Duration
}

func (s *slowSink) Accept(r content.Range) error {
	s.once.Do(func() { time.Sleep(s.wait) })
	return s.Sink.Accept(r)
}

// TestSlowDiskKeepsTheSession has an agent's disk hold its Source back for
// longer than a session may be silent: what came meanwhile is taken all the
// same.
func TestSlowDiskKeepsTheSession(t *testing.T) {
	story(t, 4<<20, CasterConfig{}, func(t *testing.T, b *box, info cache.Info, data []byte) {
		one, two := b.agent(0, 0, data), b.agent(1, 0, data)
		slow := &slowSink{wait: 4 * time.Second}
		var wg sync.WaitGroup
		for _, a := range []*agent{one, two} {
			wg.Go(func() {
				req, err := http.NewRequest(http.MethodGet, page, nil)
				if err != nil {
					t.Error(err)
					return
				}
				offer, err := a.member.Open(context.Background(), req)
				if err != nil {
					t.Error(err)
					return
				}
				sink := content.Sink(contenttest.NewSink(offer.Object.Size, offer.Object.Layer))
				if a == one {
					slow.Sink, sink = sink, slow
				}
				if err := fill(context.Background(), offer, sink); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n, st := one.repair.Load(), one.catcher.Stats(); n != 0 {
			t.Errorf("%d bytes came by HTTP: %+v", n, st)
		}
	})
}

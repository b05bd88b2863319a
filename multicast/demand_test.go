package multicast

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cistern-edge/cistern/cache"
)

// TestAgentAsksForTooMuch: the questions of one agent that wait are bounded;
// those beyond are answered at once.
func TestAgentAsksForTooMuch(t *testing.T) {
	story(t, 1<<20, CasterConfig{}, func(t *testing.T, b *box, _ cache.Info, _ []byte) {
		a := b.agent(0, 0, nil)
		var wg sync.WaitGroup
		for range maxAsking {
			wg.Go(func() {
				if ans, err := a.line.ask(context.Background(), want{Name: page}); err != nil || ans.State != verdictHTTP {
					t.Errorf("answer %+v, error %v", ans, err)
				}
			})
		}
		synctest.Wait()
		ans, err := a.line.ask(context.Background(), want{Name: page})
		if err != nil || ans.State != verdictBypass {
			t.Errorf("answer %+v, error %v", ans, err)
		}
		wg.Wait()
		if n := len(b.desk.demand.asking); n != 0 {
			t.Errorf("%d agents are counted as asking", n)
		}
	})
}

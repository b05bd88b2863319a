package cache

import (
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// TestACrowdIsWokenInStrides: bytes come in a thousand small steps. A few readers
// are told of each, a crowd of some together; of the first and of the last byte
// everybody hears at once.
func TestACrowdIsWokenInStrides(t *testing.T) {
	const steps, step, pause = 1000, 4096, time.Millisecond
	for _, c := range []struct{ readers, least, most int }{
		{crowd, steps * 9 / 10, steps},
		{50, 10, 2 * int(steps*pause/stride)},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &Fill{size: steps * step, done: make(chan struct{}), full: make(chan struct{}, 1), wanted: make(chan struct{}, 1), stirred: make(chan struct{})}
			began := time.Now()
			var all sync.WaitGroup
			for range c.readers {
				all.Go(func() {
					told, off := 0, int64(0)
					for v := (&view{ahead: minAhead}); ; told++ {
						end, err := f.wait(t.Context(), v, off)
						if err == io.EOF {
							break
						}
						if err != nil {
							t.Error(err)
							return
						}
						if off == 0 && time.Since(began) != pause {
							t.Errorf("the first byte took %s", time.Since(began))
						}
						off = end
					}
					if told < c.least || told > c.most {
						t.Errorf("%d readers: one was told %d times, want %d to %d", c.readers, told, c.least, c.most)
					}
					if took := time.Since(began); took != steps*pause {
						t.Errorf("the last byte took %s", took)
					}
				})
			}
			for i := range int64(steps) {
				time.Sleep(pause)
				f.mu.Lock()
				f.publish(content.Range{Off: i * step, End: (i + 1) * step})
				f.mu.Unlock()
			}
			all.Wait()
			time.Sleep(stride) // for the last timer
		})
	}
}

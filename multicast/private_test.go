package multicast

import (
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
)

// TestCastEndsWhenTheObjectIsTakenBack: what is on air by then is out, and
// nothing more of it goes.
func TestCastEndsWhenTheObjectIsTakenBack(t *testing.T) {
	for name, c := range map[string]struct {
		back func(s *cache.Store, num uint64) error
		why  string
	}{
		"private": {func(s *cache.Store, num uint64) error { return s.Unpublish(num) }, errPrivate.Error()},
		"taken down": {func(s *cache.Store, _ uint64) error {
			_, err := s.Purge(page, "a court said so", "test")
			return err
		}, "a court said so"},
	} {
		t.Run(name, func(t *testing.T) {
			ask, done := make(chan *box), make(chan error) // the store writes outside of the bubble
			go func() {
				b := <-ask
				info, _, _ := b.store.Lookup(page)
				done <- c.back(b.store, info.Num)
			}()
			story(t, 16<<20, CasterConfig{}, func(t *testing.T, b *box, info cache.Info, data []byte) {
				one, two := b.agent(0, 0, data), b.agent(1, 0, data)
				time.AfterFunc(time.Second, func() {
					ask <- b
					if err := <-done; err != nil {
						t.Error(err)
					}
				})
				together(t, data, one, two)
				time.Sleep(5 * time.Second) // the farewell
				if st := b.last(); !strings.Contains(st.Err, c.why) || st.Sent > info.Size*3/4 {
					t.Errorf("session %+v", st)
				}
			})
		})
	}
}

package multicast

import (
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
)

// TestCastEndsWhenTheObjectTurnsPrivate: what is on air by then is out, and
// nothing more of it goes.
func TestCastEndsWhenTheObjectTurnsPrivate(t *testing.T) {
	unpublish, done := make(chan *box), make(chan error) // the store writes outside of the bubble
	go func() {
		b := <-unpublish
		info, _, _ := b.store.Lookup(page)
		done <- b.store.Unpublish(info.Num)
	}()
	story(t, 16<<20, CasterConfig{}, func(t *testing.T, b *box, info cache.Info, data []byte) {
		one, two := b.agent(0, 0, data), b.agent(1, 0, data)
		time.AfterFunc(time.Second, func() {
			unpublish <- b
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		together(t, data, one, two)
		time.Sleep(5 * time.Second) // the farewell
		if st := b.last(); st.Err != errPrivate.Error() || st.Sent > info.Size*3/4 {
			t.Errorf("session %+v", st)
		}
	})
}

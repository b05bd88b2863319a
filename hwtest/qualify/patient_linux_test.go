package qualify

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A disk that hangs is given up after a minute, and not asked again.
func TestHangingDiskIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p patient
		if n, err := p.within(func() (int, error) { time.Sleep(patience / 2); return 7, nil }); n != 7 || err != nil {
			t.Errorf("a slow answer: %d, %v", n, err)
		}
		never := make(chan struct{})
		began := time.Now()
		_, err := p.within(func() (int, error) { <-never; return 0, nil })
		if !errors.Is(err, errHangs) || time.Since(began) != patience {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if !broken(err) {
			t.Error("a disk that hangs is not said to be broken")
		}
		if _, err := p.within(func() (int, error) { t.Error("it was asked again"); return 0, nil }); !errors.Is(err, errHangs) {
			t.Error(err)
		}
		close(never) // the end of a bubble waits for all
	})
}

//go:build soak

package hwtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// powerCuts is how many are made in all.
const powerCuts = 30

// cuts is how far the runs of TestImagePowerCut have come.
type cuts struct{ Done, Survived, Wrong, Committed int }

// TestImagePowerCut pulls the plug of a box that is being updated while clients
// fill its cache, at random moments, and starts it again: it always works, and
// never gives a wrong byte. Each run makes as many cuts as it has time for; the
// next one goes on with the same disk, until there were thirty.
func TestImagePowerCut(t *testing.T) {
	f := newFoundry(t)
	good, counts := f.good(t), filepath.Join(f.dir, "powercut.json")
	kept := filepath.Join(f.dir, "powercut.img")
	n := resume(t, counts)
	if _, err := os.Stat(kept); err != nil {
		copyDisk(t, kept, f.base(t), diskSize)
	}
	m := newMachine(t, pc{}, "", 0)
	m.disk = kept
	w := newWorld(t)
	longest := time.Minute
	for n.Survived+n.Wrong < powerCuts && timeFor(t, 2*longest) {
		began := time.Now()
		m.powerOn(t)
		s := m.await(t, "the panel after a cut", func(s client.System) bool { return s.Healthy })
		n.Survived = n.Done - n.Wrong
		longest = max(longest, time.Since(began)+mostLoad)
		switch {
		case n.Done == powerCuts:
			m.powerOff()
		case s.Version == "1.2":
			n.Committed++
			m.powerOff()
			copyDisk(t, kept, f.base(t), diskSize) // it has arrived; once more from the beginning
		default:
			n.Done++
			if err := m.cutPower(t, w, good); err != nil {
				n.Wrong++
				t.Errorf("cut %d: %v", n.Done, err)
			}
		}
		text, err := json.Marshal(n)
		if err == nil {
			err = os.WriteFile(counts, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("figure: image, power cuts under update and load, at random moments: %d of %d made, %d without a wrong byte and followed by a start that works: %s",
		n.Done, powerCuts, n.Survived, verdict(n.Survived == powerCuts))
	t.Logf("figure: image, updates that were committed between them: %d (measured)", n.Committed)
}

// timeFor says whether the test may take so much longer.
func timeFor(t *testing.T, d time.Duration) bool {
	t.Helper()
	deadline, limited := t.Deadline()
	return !limited || time.Until(deadline) > d
}

// resume says how far earlier runs came.
func resume(t *testing.T, file string) (n cuts) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &n)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return n
}

// mostLoad is how long a box is updated under load at most, until the cut.
const mostLoad = 40 * time.Second

// cutPower updates the box under load and pulls the plug at a random moment.
func (m *machine) cutPower(t *testing.T, w *world, update string) error {
	t.Helper()
	body, err := os.ReadFile(update)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wrong := make(chan error, 2)
	for range 2 {
		go func() {
			for ctx.Err() == nil {
				if err := m.fetch(ctx, w, "/load/"+strconv.Itoa(rand.IntN(60))); errors.Is(err, errWrongBytes) {
					wrong <- err
					return
				}
			}
			wrong <- nil
		}()
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = m.box.Update(ctx, bytes.NewReader(body)) // it is cut, or refused, since one is on trial
	}()
	time.Sleep(rand.N(mostLoad))
	m.powerOff()
	cancel()
	<-sent
	return errors.Join(<-wrong, <-wrong)
}

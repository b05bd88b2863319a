//go:build soak

package hwtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// powerCuts is how many are made in all.
const powerCuts = 30

// TestImagePowerCut pulls the plug of a box that is being updated while clients
// fill its cache, at random moments, and starts it again: it always works, and
// never gives a wrong byte. Each run makes as many cuts as it has time for; the
// next one goes on with the same disk, until there were thirty.
func TestImagePowerCut(t *testing.T) {
	f := newFoundry(t)
	good := f.good(t)
	kept := filepath.Join(f.dir, "powercut.img")
	done, committed := resume(t, f)
	m := newMachine(t, pc{}, "", 0)
	if _, err := os.Stat(kept); err != nil {
		copyDisk(t, kept, f.base(t), diskSize)
	}
	m.disk = kept
	w := newWorld(t)
	for end := time.Now().Add(6*time.Minute + 30*time.Second); done < powerCuts && time.Now().Before(end); {
		m.powerOn(t)
		s := m.await(t, "the panel after a cut", func(s client.System) bool { return s.Healthy })
		if s.Version == "1.2" {
			committed++
			m.powerOff()
			copyDisk(t, kept, f.base(t), diskSize) // it has arrived; once more from the beginning
			continue
		}
		if err := m.cutPower(t, w, good); err != nil {
			t.Errorf("cut %d: %v", done, err)
		}
		done++
		if err := os.WriteFile(filepath.Join(f.dir, "powercut.count"), fmt.Appendf(nil, "%d %d", done, committed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("figure: image, power cuts under update and load after which the box works and gives no wrong byte: %d cuts (bound %d): %s", done, powerCuts, verdict(done >= powerCuts))
	t.Logf("figure: image, updates that were committed between them: %d (measured)", committed)
}

// resume says how far earlier runs came.
func resume(t *testing.T, f *foundry) (done, committed int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(f.dir, "powercut.count"))
	if err == nil {
		first, second, _ := strings.Cut(string(text), " ")
		done, err = strconv.Atoi(first)
		if err == nil {
			committed, err = strconv.Atoi(second)
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return done, committed
}

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
	time.Sleep(time.Duration(rand.IntN(40_000)) * time.Millisecond)
	m.powerOff()
	cancel()
	<-sent
	return errors.Join(<-wrong, <-wrong)
}

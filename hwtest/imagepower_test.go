//go:build soak

package hwtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/image"
)

// powerCuts is how many are made in all.
const powerCuts = 30

// What a box does when its plug is pulled. One that starts does so after a cut:
// what puts the data in order is cut too.
const (
	cutLoad    = "load"    // clients fill the cache
	cutWriting = "writing" // and an update comes in and is written
	cutTrial   = "trial"   // and the new system starts, works and is committed
	cutStart   = "start"
)

// cutOrder is gone through again and again.
var cutOrder = [...]string{cutLoad, cutStart, cutWriting, cutStart, cutTrial, cutStart}

// syncTime is after how long what a client got whole has to be on the disk: the
// store syncs it within 5 s, and writes down within 5 s more that it did; under
// emulation both take their time.
const syncTime = 15 * time.Second

// cut is one pull of the plug.
type cut struct {
	During string
	After  float64 // seconds from the beginning of that
	Moment string  // how far the box had come
}

// cuts is how far the runs of TestImagePowerCut have come.
type cuts struct {
	Made          []cut
	Survived      int    // cuts followed by a start that works, on the same data
	Boots         uint64 // as the box counted them at that start
	Origin        string // host:port of the world on this machine
	Next          int    // the number of the next file
	Kept, Young   []int  // files that clients got longer than syncTime before a cut, and later
	Wrong         int    // answers with a wrong byte
	Synced, Lost  int    // of Kept: looked for after a cut, and not there
	Recent, Gone  int    // of Young: the same
	Committed     int    // updates
	StartsInSlotB bool   // what was updated to is what starts
}

// TestImagePowerCut pulls the plug of a box at random moments, of its starts, of
// updates and of clients' filling its cache, and starts it again: it always
// works on the data that it had, keeps what was synced, and never gives a wrong
// byte. Each run makes as many cuts as it has time for; the next one goes on with
// the same disk, until there were thirty.
func TestImagePowerCut(t *testing.T) {
	f := newFoundry(t)
	r := newCutter(t, f)
	longest := time.Minute
	for (len(r.Made) < powerCuts || r.Survived < powerCuts) && timeFor(t, longest+longest/2) {
		began := time.Now()
		r.round(t)
		longest = max(longest, time.Since(began))
		r.save(t)
	}
	for _, c := range r.Made {
		t.Logf("cut during %s after %.1f s: %s", c.During, c.After, c.Moment)
	}
	count := map[string]int{}
	for _, c := range r.Made {
		count[c.During]++
	}
	t.Logf("figure: image, power cuts: %d of %d made, %d followed by a start that works on the same data: %s",
		len(r.Made), powerCuts, r.Survived, verdict(r.Survived == powerCuts))
	t.Logf("figure: image, power cuts under load, while an update was written, at its trial, in a start: %d, %d, %d, %d (measured)",
		count[cutLoad], count[cutWriting], count[cutTrial], count[cutStart])
	t.Logf("figure: image, answers with a wrong byte before and after them: %d (bound 0): %s", r.Wrong, verdict(r.Wrong == 0))
	t.Logf("figure: image, files lost after them that clients had got more than %v before: %d of %d (bound 0): %s", syncTime, r.Lost, r.Synced, verdict(r.Lost == 0))
	t.Logf("figure: image, files lost after them that clients had got later: %d of %d (measured)", r.Gone, r.Recent)
	t.Logf("figure: image, updates that were committed between them: %d (measured)", r.Committed)
}

// timeFor says whether the test may take so much longer.
func timeFor(t *testing.T, d time.Duration) bool {
	t.Helper()
	deadline, limited := t.Deadline()
	return !limited || time.Until(deadline) > d
}

// cutter is the box with what is known of it.
type cutter struct {
	cuts
	*machine
	world  *world
	update []byte // to release 1.2
	counts string // file of the cuts
	start  time.Duration

	// mu guards what the load has got, and when.
	mu  sync.Mutex
	got map[int]time.Time
}

// newCutter goes on where the last run ended.
func newCutter(t *testing.T, f *foundry) *cutter {
	t.Helper()
	r := &cutter{counts: filepath.Join(f.dir, "powercut.json"), start: time.Minute, machine: newMachine(t, pc{}, "", 0)}
	var err error
	if r.update, err = os.ReadFile(f.good(t)); err != nil {
		t.Fatal(err)
	}
	r.disk = filepath.Join(f.dir, "powercut.img")
	text, err := os.ReadFile(r.counts)
	if err == nil {
		err = json.Unmarshal(text, &r.cuts)
	}
	if errors.Is(err, os.ErrNotExist) {
		r.Origin, err = freePort(t), nil
		copyDisk(t, r.disk, f.base(t), diskSize)
	}
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", r.Origin) // what is cached has its address
	if err != nil {
		t.Fatal(err)
	}
	r.world = &world{}
	r.world.server = httptest.NewUnstartedServer(r.world)
	r.world.server.Listener = listener
	r.world.server.Start()
	t.Cleanup(r.world.server.Close)
	_, port, _ := net.SplitHostPort(r.Origin)
	r.world.base = "http://10.0.2.2:" + port
	return r
}

func (r *cutter) save(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(r.cuts)
	if err == nil {
		err = os.WriteFile(r.counts, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// round starts the box, sees that it works, and cuts; of a start it only cuts.
func (r *cutter) round(t *testing.T) {
	t.Helper()
	r.got = map[int]time.Time{}
	during := cutOrder[len(r.Made)%len(cutOrder)]
	began, said := time.Now(), r.said(t)
	r.powerOn(t)
	if during == cutStart && len(r.Made) < powerCuts {
		r.cut(t, during, said, time.Now(), r.start/3+rand.N(r.start)) // nothing is written by firmware and boot loader
		return
	}
	s := r.await(t, "the panel after a cut", working)
	r.start = time.Since(began)
	r.found(t, s, said)
	if len(r.Made) == powerCuts {
		r.powerOff()
		return
	}
	if r.StartsInSlotB {
		during = cutLoad // there is nothing newer
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var load sync.WaitGroup
	load.Go(func() { r.load(ctx, t) })
	defer load.Wait()
	defer cancel()
	said = r.said(t)
	began = time.Now()
	switch during {
	case cutLoad:
		r.cut(t, during, said, began, 5*time.Second+rand.N(20*time.Second))
	case cutWriting:
		sent := r.send(ctx)
		select {
		case <-sent: // it is about to restart
		case <-time.After(rand.N(30 * time.Second)):
		}
		r.cut(t, during, said, began, 0)
	case cutTrial:
		select {
		case err := <-r.send(ctx):
			if err != nil {
				t.Errorf("update: %v", err)
			}
			r.cut(t, during, said, time.Now(), rand.N(r.start+r.start/4))
		case <-time.After(mostWriting): // a slow machine
			r.cut(t, cutWriting, said, began, 0)
		}
	}
	if r.StartsInSlotB { // once more from the release before, on the same data
		r.StartsInSlotB = false
		env, err := image.GrubEnv{"slot": string(image.SlotA)}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		r.put(t, image.PartESP, image.GrubEnvPath, env)
	}
}

// mostWriting is how long an update may take to be written.
const mostWriting = 2 * time.Minute

// cut waits and pulls the plug.
func (r *cutter) cut(t *testing.T, during string, said int, began time.Time, wait time.Duration) {
	t.Helper()
	time.Sleep(wait)
	r.powerOff()
	now := time.Now()
	c := cut{During: during, After: now.Sub(began).Seconds(), Moment: r.moment(t, during, said)}
	t.Logf("cut %d during %s after %.1f s: %s", len(r.Made)+1, c.During, c.After, c.Moment)
	r.Made = append(r.Made, c)
	r.mu.Lock()
	defer r.mu.Unlock()
	for file, at := range r.got {
		if now.Sub(at) > syncTime {
			r.Kept = append(r.Kept, file)
		} else {
			r.Young = append(r.Young, file)
		}
	}
}

// send gives the box the update.
func (r *cutter) send(ctx context.Context) <-chan error {
	sent := make(chan error, 1)
	go func() {
		_, err := r.box.Update(ctx, bytes.NewReader(r.update))
		sent <- err
	}()
	return sent
}

// load gets one new file after the other until ctx is done.
func (r *cutter) load(ctx context.Context, t *testing.T) {
	for ctx.Err() == nil {
		r.mu.Lock()
		file := r.Next
		r.Next++
		r.mu.Unlock()
		err := r.fetch(ctx, r.world, loaded(file))
		r.mu.Lock()
		switch {
		case err == nil:
			r.got[file] = time.Now()
		case errors.Is(err, errWrongBytes):
			r.Wrong++
			t.Errorf("under load: %v", err)
		}
		r.mu.Unlock()
		if err != nil {
			time.Sleep(200 * time.Millisecond) // it restarts
		}
	}
}

func loaded(file int) string { return fmt.Sprintf("/load/%d", file) }

// mostLooks is how many files are looked for after a cut, of each kind.
const mostLooks = 5

// found looks at a box that has started after cuts, or for the first time.
func (r *cutter) found(t *testing.T, s client.System, said int) {
	t.Helper()
	if text := r.since(t, said); strings.Contains(text, "failed to check the data") {
		t.Errorf("its file system was damaged:\n%s", text)
	}
	if s.Boots <= r.Boots {
		t.Errorf("it counts start %d after start %d: that is other data", s.Boots, r.Boots)
	} else {
		r.Survived = len(r.Made)
	}
	r.Boots = s.Boots
	if r.StartsInSlotB = s.Slot == string(image.SlotB); r.StartsInSlotB {
		r.Committed++
	}
	some, rest := pick(r.Kept)
	there, lost := r.look(t, some)
	r.Synced, r.Lost = r.Synced+len(some), r.Lost+lost
	if lost > 0 {
		t.Errorf("%d of %d files were lost that had been there for %v", lost, len(some), syncTime)
	}
	r.Kept = append(there, rest...)
	some, _ = pick(r.Young) // whether the others are there nobody knows, now or after the next cut
	there, lost = r.look(t, some)
	r.Recent, r.Gone = r.Recent+len(some), r.Gone+lost
	r.Kept, r.Young = append(r.Kept, there...), nil
}

// pick gives some files to look for, and the rest.
func pick(files []int) (some, rest []int) {
	rand.Shuffle(len(files), func(i, k int) { files[i], files[k] = files[k], files[i] })
	n := min(len(files), mostLooks)
	return files[:n:n], files[n:]
}

// look asks for files and says which are there and how many came from the origin
// again.
func (r *cutter) look(t *testing.T, files []int) (there []int, lost int) {
	t.Helper()
	for _, file := range files {
		before := r.world.asked.Load()
		err := r.fetch(t.Context(), r.world, loaded(file))
		if errors.Is(err, errWrongBytes) {
			r.Wrong++
		}
		if err != nil {
			t.Errorf("file %d after a cut: %v", file, err)
		}
		if r.world.asked.Load() != before {
			lost++
			continue
		}
		there = append(there, file)
	}
	return there, lost
}

// said is how much is in the log of the serial line.
func (r *cutter) said(t *testing.T) int { t.Helper(); return len(r.since(t, 0)) }

func (r *cutter) since(t *testing.T, said int) string {
	t.Helper()
	text, err := os.ReadFile(r.log())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text[said:])
}

// moment is how far the box had come: what it said last.
func (r *cutter) moment(t *testing.T, during string, said int) string {
	t.Helper()
	at, last := -1, map[string]string{
		cutLoad: "it works", cutWriting: "the update comes in or is written", cutTrial: "the update is written", cutStart: "firmware",
	}[during]
	text := r.since(t, said)
	for _, m := range [][2]string{
		{"BdsDxe: loading", "firmware and boot loader"},
		{"started system", "the disk is looked for, checked and mounted"},
		{"brought up interface", "the network comes up"},
		{"proxy listened", "the daemon starts"},
		{"msg=works", "it works"},
		{"installed an update", "the update is written, and it restarts"},
		{"msg=rebooting", "it restarts"},
		{"committed the new system", "the new system is committed"},
	} {
		if i := strings.LastIndex(text, m[0]); i > at {
			last, at = m[1], i
		}
	}
	return last
}

package peering

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// flipStored flips a bit of a stored body. The store must be shut.
func (b *box) flipStored(num uint64, off int64) {
	b.t.Helper()
	path := filepath.Join(b.dir, "store", "blobs", fmt.Sprintf("%02x", byte(num)), fmt.Sprintf("%016x", num))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	var one [1]byte
	if _, err := f.ReadAt(one[:], off); err != nil {
		b.t.Fatal(err)
	}
	one[0] ^= 4
	if _, err := f.WriteAt(one[:], off); err != nil {
		b.t.Fatal(err)
	}
}

// A block of a torrent's file that was damaged on the disk comes again from the
// swarm, and nothing else does.
func TestDamagedFileComesAgainFromTheSwarm(t *testing.T) {
	atOnce(t)
	for _, mode := range []string{"v1", "hybrid"} {
		t.Run(mode, func(t *testing.T) {
			files := set{"a/one.img": random(61, 3<<20+100), "b.img": random(62, 2<<20)}
			text, mi := build(t, "release", files, 256<<10, modes[mode])
			b := newBox(t, nil)
			source := seed(t, "127.0.0.1", "release", files, mi)
			snap := b.add(text, source)
			b.complete(snap.InfoHash)
			name := "btih:" + snap.InfoHash + "/a/one.img"
			info, _, _ := b.store.Lookup(name)
			before := sent(source)
			if x, err := b.store.Explain(info.Num); err != nil || !strings.Contains(x.Vouched, "torrent "+snap.InfoHash) {
				t.Errorf("vouched for by %q, %v", x.Vouched, err)
			}

			b.stop()
			b.flipStored(info.Num, 1<<20+7)
			b.start()
			b.store.SetRepairer(b.swarm)
			b.complete(snap.InfoHash)
			r, err := b.store.Read(info.Num)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := r.ReadAt(make([]byte, 10), 1<<20); err == nil {
				t.Error("a damaged block was given to a peer")
			}
			until(t, "the torrent is joined again", func() bool { return b.torrent(snap.InfoHash).State == StateFetching })
			b.point(snap.InfoHash, source)
			b.complete(snap.InfoHash)
			b.holds(name, files["a/one.img"])
			b.holds("btih:"+snap.InfoHash+"/b.img", files["b.img"])
			// A block of 1 MiB and a piece on each side of it, where those begin
			// elsewhere.
			if again := sent(source) - before; again < content.BlockSize || again > content.BlockSize+2*256<<10 {
				t.Errorf("the seed was asked for %d bytes again", again)
			}
			if st := b.store.Stats(); st.Damaged != 1 {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

// A block that turns out damaged while the rest of the torrent is still being
// fetched is fetched again too.
func TestDamagedPartOfAResumedTorrent(t *testing.T) {
	atOnce(t)
	files := set{"x.img": random(63, 6<<20)}
	text, mi := build(t, "x.img", files, 256<<10, modes["v1"])
	b := newBox(t, nil)
	source := seed(t, "127.0.0.1", "x.img", files, mi)
	snap := b.add(text, source)
	b.complete(snap.InfoHash)
	name := "btih:" + snap.InfoHash + "/x.img"
	info, _, _ := b.store.Lookup(name)

	// Two blocks are damaged: one is found first, and makes the object partial.
	b.stop()
	b.flipStored(info.Num, 1<<20+7)
	b.flipStored(info.Num, 4<<20+7)
	b.start()
	b.store.SetRepairer(b.swarm)
	b.complete(snap.InfoHash)
	r, err := b.store.Read(info.Num)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.ReadAt(make([]byte, 10), 1<<20); err == nil {
		t.Error("a damaged block was given to a peer")
	}
	until(t, "both were found and are here again", func() bool {
		if sh := b.share(snap.InfoHash); sh != nil && sh.stateNow() == StateFetching {
			b.point(snap.InfoHash, source)
		}
		now, _ := b.store.Get(info.Num)
		return b.store.Stats().Damaged == 2 && now.Complete && b.torrent(snap.InfoHash).State == StateComplete
	})
	b.holds(name, files["x.img"])
}

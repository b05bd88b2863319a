package disk

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

func TestBlobLives(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	for num, n := range []int{0, 1, content.LeafSize, mib - 1, mib, mib + 1, 3*mib + 5} {
		data := noise(uint64(num), n)
		b := putBlob(t, v, uint64(num), data, []byte{byte(num), 1})
		want := content.NewLayer(int64(n), hashes(t, data))
		layer, err := b.Layer(int64(n))
		must(t, err)
		if !slices.Equal(layer.Hashes, want.Hashes) {
			t.Errorf("%d bytes: the layer is another", n)
		}
		must(t, b.Close())

		b, err = v.Open(uint64(num))
		must(t, err)
		size, err := b.Size()
		if err != nil || size != int64(n) || b.Num() != uint64(num) {
			t.Errorf("%d bytes: size is %d, number %d: %v", n, size, b.Num(), err)
		}
		card, err := b.Card()
		if err != nil || !bytes.Equal(card, []byte{byte(num), 1}) {
			t.Errorf("%d bytes: card is %x: %v", n, card, err)
		}
		have, err := b.Resume(int64(n), layer)
		if err != nil || have.Len() != int64(n) {
			t.Errorf("%d bytes: %v are durable: %v", n, have, err)
		}
		for i := range content.Blocks(int64(n)) {
			must(t, b.Drop(content.Block(i, int64(n))))
			if err := b.Check(i, int64(n)); err != nil {
				t.Error(err)
			}
		}
		if b.Check(content.Blocks(int64(n)), int64(n)) == nil || b.Check(-1, int64(n)) == nil {
			t.Error("a block that cannot be was checked")
		}
		must(t, b.Close())
		f, err := v.OpenBody(uint64(num))
		must(t, err)
		got, err := io.ReadAll(f)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: body is another: %v", n, err)
		}
		must(t, f.Close())
	}
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	b := putBlob(t, v, 7, []byte("body"), nil)
	_, err := v.Create(7, 4, nil)
	wantErr(t, "creating a blob twice", err, fs.ErrExist)
	if _, err := v.Create(8, -2, nil); err == nil {
		t.Error("a size of -2 was taken")
	}
	if _, err := v.Create(8, 1, make([]byte, MaxCard+1)); err == nil {
		t.Error("a card too large was taken")
	}
	if b.SetCard(make([]byte, MaxCard+1)) == nil || b.SetSize(-2) == nil || b.PutSlot(0, nil) == nil ||
		b.PutSlot(-1, make([]content.Hash, 1)) == nil || b.PutSlot(0, make([]content.Hash, 65)) == nil || b.Forget(-1) == nil {
		t.Error("nonsense was taken")
	}
	must(t, v.shard(9))
	must(t, os.WriteFile(blobPath(v.dir, 9|7<<8)+".tree", nil, 0o600))
	_, err = v.Create(9|7<<8, 4, nil)
	if err == nil {
		t.Error("a blob took an old sidecar over")
	}
	must(t, b.Check(0, 4))
	must(t, v.Remove(9|7<<8))
	if got := walk(t, v); len(got) != 1 || got[7].size != 4 || got[7].err != nil {
		t.Errorf("the volume holds %v", got)
	}
	_, err = v.Open(8)
	wantErr(t, "opening what is not there", err, fs.ErrNotExist)
	_, err = v.OpenBody(8)
	wantErr(t, "opening what is not there", err, fs.ErrNotExist)
	must(t, v.Remove(8))
}

func TestCardComesAndGoes(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	b := putBlob(t, v, 1, []byte("body"), nil)
	for _, card := range [][]byte{nil, noise(1, MaxCard), []byte("short"), {}, {0}, noise(2, 100)} {
		must(t, b.SetCard(card))
		must(t, b.SyncTree())
		got, err := b.Card()
		if err != nil || !bytes.Equal(got, card) {
			t.Errorf("card of %d bytes came back as %d: %v", len(card), len(got), err)
		}
		if w := walk(t, v)[1]; w.card != string(card) || w.size != 4 || w.err != nil {
			t.Errorf("card of %d bytes walked as %+v", len(card), w)
		}
		must(t, b.Check(0, 4))
	}
}

// A slot, head or card in another blob's sidecar or at another index must not
// pass.
func TestPlaceIsPartOfTheChecksum(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	data := slices.Concat(noise(1, mib), noise(1, mib))
	a, b := putBlob(t, v, 1, data, []byte("card of a")), putBlob(t, v, 2, data, []byte("card of b"))
	treeA, err := os.ReadFile(blobPath(v.dir, 1) + ".tree")
	must(t, err)
	patch(t, blobPath(v.dir, 2)+".tree", slotOff(0), treeA[slotOff(0):slotOff(1)])
	wantErr(t, "the slot of another blob", b.Check(0, 2*mib), ErrDamaged)
	patch(t, blobPath(v.dir, 1)+".tree", slotOff(1), treeA[slotOff(0):slotOff(1)])
	wantErr(t, "the slot of another block", a.Check(1, 2*mib), ErrDamaged)
	_, err = a.Layer(2 * mib)
	wantErr(t, "its layer", err, ErrDamaged)
	patch(t, blobPath(v.dir, 2)+".tree", headerSize, treeA[headerSize:headSize])
	_, err = b.Card()
	wantErr(t, "the card of another blob", err, ErrDamaged)
	patch(t, blobPath(v.dir, 2)+".tree", 0, treeA[:headSize])
	_, err = b.Size()
	wantErr(t, "the head of another blob", err, ErrDamaged)
	wantErr(t, "its walk", walk(t, v)[2].err, ErrDamaged)
}

func TestCheckTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	data := noise(3, 3*mib)
	b := putBlob(t, v, 1, data, []byte("card"))
	path := blobPath(v.dir, 1)
	patch(t, path, mib+77, []byte{data[mib+77] ^ 1})
	wantErr(t, "a flip in the body", b.Check(1, 3*mib), ErrDiffers)
	must(t, b.Check(0, 3*mib))

	must(t, b.Forget(1))
	wantErr(t, "a forgotten block", b.Check(1, 3*mib), ErrMissing)
	_, err := b.Layer(3 * mib)
	wantErr(t, "the layer of a partial blob", err, ErrMissing)
	have, err := b.Resume(3*mib, nil)
	if err != nil || !slices.Equal(have, content.Ranges{{End: mib}, {Off: 2 * mib, End: 3 * mib}}) {
		t.Errorf("durable: %v, %v", have, err)
	}
	putBlock(t, b, data, 1)
	must(t, b.Check(1, 3*mib))

	must(t, b.File().Truncate(3*mib-1))
	wantErr(t, "a body cut short", b.Check(2, 3*mib), ErrDiffers)
	must(t, b.File().Truncate(mib))
	wantErr(t, "a body cut shorter", b.Check(2, 3*mib), ErrDiffers)
	must(t, b.Forget(1000)) // beyond the sidecar: nothing to do, nothing grows
	have, err = b.Resume(3*mib, nil)
	if err != nil || !slices.Equal(have, content.Ranges{{End: mib}}) {
		t.Errorf("durable after the cut: %v, %v", have, err)
	}
	if st, err := b.File().Stat(); err != nil || st.Size() != 3*mib {
		t.Errorf("the body was not made whole again: %v", err)
	}
	must(t, b.Close())
	if err := b.Check(0, 3*mib); err == nil {
		t.Error("a closed blob was checked")
	}
}

func TestResumeWipesWhatIsBelied(t *testing.T) {
	t.Parallel()
	data := noise(4, 2*mib+100)
	size := int64(len(data))
	layer := content.NewLayer(size, hashes(t, data))
	other := &content.Layer{Size: size, Hashes: slices.Clone(layer.Hashes)}
	other.Hashes[1][0] ^= 1
	all := content.Ranges{{End: size}}
	for name, c := range map[string]struct {
		size  int64
		layer *content.Layer
		harm  func(*Blob) error
		want  content.Ranges
	}{
		"all is well":       {size, layer, nil, all},
		"size forgotten":    {content.UnknownSize, nil, nil, all},
		"another layer":     {size, other, nil, content.Ranges{{End: mib}, {Off: 2 * mib, End: size}}},
		"a short layer":     {size, &content.Layer{Size: size, Hashes: layer.Hashes[:1]}, nil, content.Ranges{{End: mib}}},
		"another size":      {size + 1, nil, nil, nil},
		"header lost":       {size, nil, func(b *Blob) error { _, err := b.tree.WriteAt([]byte{0}, 3); return err }, nil},
		"sidecar lost":      {size, nil, func(b *Blob) error { return b.tree.Truncate(0) }, nil},
		"size never seen":   {size, nil, func(b *Blob) error { return b.SetSize(content.UnknownSize) }, all},
		"slots beyond":      {size, nil, func(b *Blob) error { return b.PutSlot(9, layer.Hashes[:1]) }, all},
		"slot of few":       {size, nil, func(b *Blob) error { return b.PutSlot(0, layer.Hashes[:1]) }, content.Ranges{{Off: mib, End: size}}},
		"never known, full": {content.UnknownSize, nil, func(b *Blob) error { return b.SetSize(content.UnknownSize) }, content.Ranges{{End: 2 * mib}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := putBlob(t, openVolume(t, t.TempDir()), 1, data, []byte("card"))
			if c.harm != nil {
				must(t, c.harm(b))
			}
			for range 2 { // the second time finds what the first left
				have, err := b.Resume(c.size, c.layer)
				if err != nil || !slices.Equal(have, c.want) {
					t.Errorf("durable: %v, want %v: %v", have, c.want, err)
				}
			}
			if c.size >= 0 {
				if got, err := b.Size(); err != nil || got != c.size {
					t.Errorf("size is %d: %v", got, err)
				}
			}
			if card, err := b.Card(); name != "sidecar lost" && (err != nil || string(card) != "card") {
				t.Errorf("card is %q: %v", card, err)
			}
		})
	}
}

func TestSweepAndWalkOfHalfBlobs(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	for num := range uint64(6) {
		b, err := v.Create(num<<8|5, content.UnknownSize, []byte{byte(num)})
		must(t, err)
		must(t, b.Close())
	}
	must(t, os.Remove(blobPath(v.dir, 1<<8|5)))
	must(t, os.Remove(blobPath(v.dir, 2<<8|5)+".tree"))
	must(t, os.Truncate(blobPath(v.dir, 3<<8|5)+".tree", 20))
	must(t, os.WriteFile(blobPath(v.dir, 5)+"x", nil, 0o600)) // a stranger
	must(t, os.WriteFile(blobPath(v.dir, 5)+".tree.new", nil, 0o600))
	got := walk(t, v)
	for num := range uint64(6) {
		bad := num >= 1 && num <= 3
		if w := got[num<<8|5]; bad == (w.err == nil) || !bad && w.card != string([]byte{byte(num)}) || w.size != content.UnknownSize {
			t.Errorf("blob %d walked as %+v", num, w)
		} else if bad {
			wantErr(t, "half a blob", w.err, ErrDamaged)
		}
	}
	seen := 0
	must(t, v.Walk(func(uint64, int64, []byte, error) bool { seen++; return seen < 2 }))
	if seen != 2 || len(got) != 6 {
		t.Errorf("walked %d of %d", seen, len(got))
	}
	n, err := v.Sweep(4<<8|5, func(num uint64) bool { return num == 3<<8|5 })
	if err != nil || n != 3 {
		t.Errorf("swept %d: %v", n, err)
	}
	if got := sortedKeys(walk(t, v)); !slices.Equal(got, []uint64{3<<8 | 5, 4<<8 | 5, 5<<8 | 5}) {
		t.Errorf("left: %x", got)
	}
}

// Many goroutines write, read and prove blocks of one blob while others are made
// and removed in the same folders.
func TestBlobsAtOnce(t *testing.T) {
	t.Parallel()
	v := openVolume(t, t.TempDir())
	data := noise(5, 8*mib)
	b, err := v.Create(1<<40, 8*mib, nil)
	must(t, err)
	defer b.Close()
	var wg sync.WaitGroup
	for i := range int64(8) {
		wg.Go(func() {
			putBlock(t, b, data, i)
			if err := b.Check(i, 8*mib); err != nil {
				t.Error(err)
			}
			if err := b.SetCard([]byte{byte(i)}); err != nil {
				t.Error(err)
			}
			if card, err := b.Card(); err != nil || len(card) != 1 {
				t.Errorf("card is %x: %v", card, err)
			}
		})
		wg.Go(func() {
			for j := range uint64(20) {
				num := uint64(i)<<32 | j
				x, err := v.Create(num, 10, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if err := x.Sync(); err != nil {
					t.Error(err)
				}
				if err := x.Close(); err != nil {
					t.Error(err)
				}
				if err := v.Remove(num); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	have, err := b.Resume(8*mib, content.NewLayer(8*mib, hashes(t, data)))
	if err != nil || have.Len() != 8*mib {
		t.Errorf("durable: %v, %v", have, err)
	}
	if n := len(walk(t, v)); n != 1 {
		t.Errorf("%d blobs are left", n)
	}
}

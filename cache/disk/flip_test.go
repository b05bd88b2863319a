package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// shelf is a volume with a bit of everything, and what must be read from it.
type shelf struct {
	dir   string
	size  map[uint64]int64
	cards map[uint64]string
	body  map[uint64][]byte
	layer map[uint64]*content.Layer
	small []object
}

func newShelf(t *testing.T) *shelf {
	sh := &shelf{
		dir: t.TempDir(), size: map[uint64]int64{0: mib + 5000, 1: 20000, 2: 3},
		cards: map[uint64]string{}, body: map[uint64][]byte{}, layer: map[uint64]*content.Layer{},
	}
	v := openVolume(t, sh.dir)
	for num, size := range sh.size {
		data, card := noise(num, int(size)), noise(num, 700)
		must(t, putBlob(t, v, num, data, card).Close())
		sh.cards[num], sh.body[num] = string(card), data
		sh.layer[num] = content.NewLayer(size, hashes(t, data))
	}
	for i := range uint64(40) {
		sh.small = append(sh.small, put(t, v.Segments(), small(i, int(i)*100)))
	}
	must(t, v.Close())
	return sh
}

// read reads all there is, and gives the typed errors it met. What is wrong
// without an error fails the test. Blobs are read whole if wanted.
func (sh *shelf) read(t *testing.T, wanted func(num uint64) bool) (caught []error) {
	v, err := Open(sh.dir, quiet)
	if err != nil {
		return []error{err}
	}
	defer v.Close()
	note := func(err error) bool {
		if err != nil {
			caught = append(caught, err)
		}
		return err == nil
	}
	for num, w := range walk(t, v) {
		if note(w.err) && (w.size != sh.size[num] || w.card != "" && w.card != sh.cards[num]) {
			t.Errorf("blob %d walked wrong: %+v", num, w)
		}
	}
	for num := range sh.body {
		if wanted(num) {
			sh.readBlob(t, v, num, note)
		}
	}
	for _, o := range sh.small {
		card, body, err := v.Segments().Read(o.at, o.num, nil)
		if note(err) && (!bytes.Equal(card, o.card) || !bytes.Equal(body, o.body)) {
			t.Errorf("object %d came back wrong", o.num)
		}
	}
	sound, bad := scanned(t, v.Segments())
	if bad > 0 {
		note(ErrDamaged)
	}
	for p, num := range sound {
		if p != sh.small[num].at {
			t.Errorf("object %d was scanned at %v", num, p)
		}
	}
	return caught
}

func (sh *shelf) readBlob(t *testing.T, v *Volume, num uint64, note func(error) bool) {
	b, err := v.Open(num)
	must(t, err)
	defer b.Close()
	card, err := b.Card()
	if note(err) && string(card) != sh.cards[num] {
		t.Errorf("card of blob %d came back wrong", num)
	}
	if size, err := b.Size(); note(err) && size != sh.size[num] {
		t.Errorf("size of blob %d is %d", num, size)
	}
	layer, err := b.Layer(sh.size[num])
	if note(err) && !slices.Equal(layer.Hashes, sh.layer[num].Hashes) {
		t.Errorf("layer of blob %d came back wrong", num)
	}
	for i := range content.Blocks(sh.size[num]) {
		r := content.Block(i, sh.size[num])
		got := make([]byte, r.Len())
		_, err := b.ReadAt(got, r.Off)
		must(t, err)
		if note(b.Check(i, sh.size[num])) && !bytes.Equal(got, sh.body[num][r.Off:r.End]) {
			t.Errorf("block %d of blob %d passed and is wrong", i, num)
		}
	}
}

// One bit flipped anywhere on the volume gives a typed error or does not matter.
func TestFlips(t *testing.T) {
	t.Parallel()
	sh := newShelf(t)
	if caught := sh.read(t, func(uint64) bool { return true }); caught != nil {
		t.Fatalf("before any flip: %v", caught)
	}
	all := files(t, sh.dir)
	// Each region has the same share, however small it is.
	type region struct {
		name, path string
		from, to   int
	}
	var regions []region
	for path, data := range all {
		rel, _ := filepath.Rel(sh.dir, path) // both are whole
		switch {
		case strings.HasSuffix(rel, ".tree"):
			regions = append(regions, region{"header", path, 0, headerSize}, region{"card", path, headerSize, headerSize + 8 + 700}, region{"slots", path, headSize, len(data)})
		case strings.HasPrefix(rel, "blobs"):
			regions = append(regions, region{"body", path, 0, len(data)})
		case strings.HasSuffix(rel, ".seg"):
			regions = append(regions, region{"segment header", path, 0, segmentHead}, region{"segment", path, segmentHead, len(data)})
		case len(data) > 0:
			regions = append(regions, region{rel, path, 0, len(data)})
		}
	}
	slices.SortFunc(regions, func(a, b region) int { return strings.Compare(a.path+a.name, b.path+b.name) })
	r := rand.New(rand.NewPCG(3, 1000))
	caught, idle := map[string]int{}, map[string]int{}
	flips := rounds(1000, 250)
	for i := range flips {
		reg := regions[i%len(regions)]
		at := reg.from + r.IntN(reg.to-reg.from)
		patch(t, reg.path, int64(at), []byte{all[reg.path][at] ^ 1<<r.IntN(8)})
		errs := sh.read(t, func(num uint64) bool { return i%20 == 0 || strings.HasPrefix(reg.path, blobPath(sh.dir, num)) })
		for _, err := range errs {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrDiffers) && !errors.Is(err, ErrMissing) {
				t.Errorf("flip in %s at %d: %v", reg.name, at, err)
			}
		}
		if len(errs) > 0 {
			caught[reg.name]++
		} else {
			idle[reg.name]++
			if p := all[reg.path]; reg.name == "body" || reg.name == "slots" || reg.name == "card" {
				t.Errorf("flip in %s at %d of %d went by", reg.name, at, len(p))
			}
		}
		patch(t, reg.path, int64(at), all[reg.path][at:at+1])
		if reg.name == markerName { // it was made anew
			must(t, os.WriteFile(reg.path, all[reg.path], 0o600))
		}
	}
	total := 0
	for _, n := range caught {
		total += n
	}
	t.Logf("figure: bit flips: %d of %d caught (none read as right): ok; caught: %v; not needed or healed: %v", total, flips, caught, idle)
	if total < flips/2 {
		t.Errorf("only %d flips were caught", total)
	}
}

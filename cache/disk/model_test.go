package disk

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// model is what a volume must hold.
type model struct {
	v      *Volume
	r      *rand.Rand
	blobs  map[uint64]*modelBlob
	nextly uint64
	small  []object
	fresh  int // how many of small are not flushed
}

type modelBlob struct {
	*Blob
	data    []byte
	size    int64 // as it was said
	card    []byte
	durable content.Ranges
}

// TestModel does what an owner does, in any order, and closes and opens again in
// between; what comes back must be what a plain model holds.
func TestModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(rounds(20, 2)) {
		m := &model{v: openVolume(t, t.TempDir()), r: rand.New(rand.NewPCG(seed, 7)), blobs: map[uint64]*modelBlob{}}
		for range rounds(400, 150) {
			m.step(t)
		}
		m.reopen(t, false)
	}
}

func (m *model) step(t *testing.T) {
	b := m.pick()
	switch n := m.r.IntN(20); {
	case n == 0:
		m.reopen(t, m.r.IntN(2) == 0)
	case n <= 2 || b == nil:
		m.create(t)
	case n == 3:
		must(t, b.Close())
		must(t, m.v.Remove(b.num))
		delete(m.blobs, b.num)
	case n <= 7:
		m.block(t, b)
	case n == 8:
		i := m.r.Int64N(content.Blocks(int64(len(b.data))))
		must(t, b.Forget(i))
		b.durable.Remove(content.Block(i, int64(len(b.data))))
	case n == 9:
		b.card = noise(m.r.Uint64(), m.r.IntN(MaxCard+1))
		must(t, b.SetCard(b.card))
	case n == 10:
		b.size = int64(len(b.data))
		must(t, b.SetSize(b.size))
	case n <= 17:
		m.small = append(m.small, put(t, m.v.Segments(), small(m.r.Uint64N(1000), m.r.IntN(MaxSmall))))
		m.fresh++
	case n == 18:
		must(t, m.v.Segments().Flush())
		m.fresh = 0
	default:
		m.removeSegment(t)
	}
	if len(m.small) > 0 {
		wantObject(t, m.v.Segments(), m.small[m.r.IntN(len(m.small))])
	}
}

func (m *model) pick() *modelBlob {
	keys := sortedKeys(m.blobs)
	if len(keys) == 0 {
		return nil
	}
	return m.blobs[keys[m.r.IntN(len(keys))]]
}

func (m *model) create(t *testing.T) {
	m.nextly += 1 + m.r.Uint64N(200)
	b := &modelBlob{data: noise(m.nextly, 1+m.r.IntN(2*mib)), size: content.UnknownSize, card: noise(m.nextly, m.r.IntN(100))}
	if m.r.IntN(2) == 0 {
		b.size = int64(len(b.data))
	}
	var err error
	b.Blob, err = m.v.Create(m.nextly, b.size, b.card)
	must(t, err)
	m.blobs[m.nextly] = b
}

// block makes a block durable; the last one of an unknown size has to wait.
func (m *model) block(t *testing.T, b *modelBlob) {
	i := m.r.Int64N(content.Blocks(int64(len(b.data))))
	r := content.Block(i, int64(len(b.data)))
	if b.size < 0 && r.Len() < mib {
		return
	}
	putBlock(t, b.Blob, b.data, i)
	b.durable.Add(r)
	if m.r.IntN(3) > 0 {
		return
	}
	crc, err := b.SumBlock(r)
	must(t, err)
	must(t, b.PutSum(i, crc))
	if m.r.IntN(2) == 0 && b.size >= 0 {
		hashed, err := b.HashLate(i, b.size)
		if err != nil || !hashed {
			t.Errorf("block %d of blob %d was hashed late: %v, %v", i, b.num, hashed, err)
		}
	}
}

func (m *model) removeSegment(t *testing.T) {
	list := m.v.Segments().List()
	if len(list) < 2 {
		return
	}
	id := list[0].ID
	must(t, m.v.Segments().Remove(id))
	m.small = slices.DeleteFunc(m.small, func(o object) bool {
		if o.at.Segment == id {
			_, _, err := m.v.Segments().Read(o.at, o.num, nil)
			wantErr(t, "reading what was removed", err, fs.ErrNotExist)
		}
		return o.at.Segment == id
	})
}

// reopen ends the process, in an orderly way or as kill -9 does, and compares.
func (m *model) reopen(t *testing.T, kill bool) {
	for _, b := range m.blobs {
		must(t, b.Close())
	}
	if kill {
		must(t, m.v.lock.Close())
		m.v.segments.files.close()
	} else {
		must(t, m.v.Close())
		m.fresh = 0
	}
	m.v = openVolume(t, m.v.dir)
	flushed := len(m.small) - m.fresh
	m.small = slices.DeleteFunc(m.small, func(o object) bool {
		card, body, err := m.v.Segments().Read(o.at, o.num, nil)
		flushed--
		switch {
		case err != nil && flushed >= 0:
			t.Errorf("lost object %d, which was flushed: %v", o.num, err)
		case err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, fs.ErrNotExist):
			t.Error(err)
		case err == nil && (!bytes.Equal(card, o.card) || !bytes.Equal(body, o.body)):
			t.Errorf("object %d came back wrong", o.num)
		}
		return err != nil
	})
	m.fresh = 0
	sound, _ := scanned(t, m.v.Segments())
	for _, o := range m.small {
		if num, ok := sound[o.at]; !ok || num != o.num {
			t.Errorf("object %d was not scanned", o.num)
		}
	}
	m.compare(t)
}

func (m *model) compare(t *testing.T) {
	all := walk(t, m.v)
	if !slices.Equal(sortedKeys(all), sortedKeys(m.blobs)) {
		t.Errorf("walked %v, want %v", sortedKeys(all), sortedKeys(m.blobs))
	}
	for num, b := range m.blobs {
		if w := all[num]; w.err != nil || w.size != b.size || w.card != string(b.card) {
			t.Errorf("blob %d walked as %d bytes, %v; want %d", num, w.size, w.err, b.size)
		}
		var err error
		b.Blob, err = m.v.Open(num)
		must(t, err)
		have, err := b.Resume(content.UnknownSize, nil)
		if err != nil || !slices.Equal(have, b.durable) {
			t.Errorf("blob %d has %v, want %v: %v", num, have, b.durable, err)
		}
		for _, r := range have {
			got := make([]byte, r.Len())
			if _, err := b.ReadAt(got, r.Off); err != nil || !bytes.Equal(got, b.data[r.Off:r.End]) {
				t.Errorf("blob %d is wrong in %s: %v", num, r, err)
			}
		}
	}
}

//go:build linux

package faultfs

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
)

// model is a file as it is and as it was synced, bytes only.
type model struct{ live, synced []byte }

func (m *model) resize(n int) {
	m.live = append(bytes.Clone(m.live[:min(n, len(m.live))]), make([]byte, max(0, n-len(m.live)))...)
}

// Random lives of a file, each cut several times, against the model.
func TestBodyKeepsItsPromise(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		var s space
		s.limit.Store(math.MaxInt64)
		b := newBody(filepath.Join(t.TempDir(), "body"), &s)
		var m model
		for range 6 {
			if err := b.open(); err != nil {
				t.Fatal(err)
			}
			for range r.IntN(12) {
				if err := m.step(r, b); err != nil {
					t.Fatal(err)
				}
			}
			m.compare(t, b, func(i int, got byte) bool { return got == m.live[i] }, len(m.live), len(m.live))
			b.letGo()
			s.used.Store(0)
			if seed%2 == 0 {
				m.cut(t, b, dice{}, func(i int, got byte) bool { return got == m.synced[i] }, len(m.synced), len(m.synced))
			} else {
				m.cut(t, b, dice{r}, func(i int, got byte) bool {
					return got == 0 || i < len(m.live) && got == m.live[i] || i < len(m.synced) && got == m.synced[i]
				}, min(len(m.live), len(m.synced)), max(len(m.live), len(m.synced)))
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// step does one thing to both.
func (m *model) step(r *rand.Rand, b *body) error {
	const most = 5 * blockSize
	off, n := r.IntN(most), 1+r.IntN(2*blockSize)
	switch r.IntN(6) {
	case 0:
		m.resize(off)
		return b.truncate(int64(off))
	case 1:
		m.synced = bytes.Clone(m.live)
		b.sync()
		return nil
	case 2:
		if from, to := min(off, len(m.live)), min(off+n, len(m.live)); from < to {
			clear(m.live[from:to])
		}
		return b.punch(int64(off), int64(off+n))
	case 3:
		if off+n > len(m.live) {
			m.resize(off + n)
		}
		return b.allocate(int64(off), int64(off+n), false)
	}
	data := bytes.Repeat([]byte{byte(1 + r.IntN(255))}, n)
	if off+n > len(m.live) {
		m.resize(off + n)
	}
	copy(m.live[off:], data)
	return b.write(data, int64(off))
}

func (m *model) cut(t *testing.T, b *body, luck dice, may func(int, byte) bool, least, most int) {
	t.Helper()
	if err := b.cut(luck); err != nil {
		t.Fatal(err)
	}
	if err := b.open(); err != nil {
		t.Fatal(err)
	}
	defer b.close()
	got := m.compare(t, b, may, least, most)
	*m = model{got, bytes.Clone(got)}
}

// compare reads the file and looks at each byte, its size and the space held.
func (m *model) compare(t *testing.T, b *body, may func(int, byte) bool, least, most int) []byte {
	t.Helper()
	size, held, _ := b.stat()
	got := make([]byte, size)
	n, err := b.read(got, 0)
	if err != nil || n != len(got) || n < least || n > most {
		t.Fatalf("read %d of %d bytes, want %d to %d: %v", n, size, least, most, err)
	}
	for i, c := range got {
		if !may(i, c) {
			t.Fatalf("byte %d is %d", i, c)
		}
		if c != 0 && !b.held.has(int64(i/blockSize)) {
			t.Fatalf("byte %d is in no block", i)
		}
	}
	if _, past := span(0, size); held != b.space.used.Load() && b.space.used.Load() != 0 || held > past {
		t.Fatalf("%d blocks held by %d bytes, %d in use", held, size, b.space.used.Load())
	}
	return got
}

// Directories that only move about are all there after any cut, once each; and
// whatever happens to names, the counts agree with them.
func TestTreeStaysATree(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 2))
		d := newDisk(t.TempDir(), Config{Ordered: seed%4 == 0})
		d.space.limit.Store(math.MaxInt64)
		root := d.nodes[rootNum]
		dirs := []*inode{root}
		for i := range 5 {
			n, err := d.create(rootNum, fmt.Sprint("d", i), 0o40755, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			dirs = append(dirs, n)
		}
		d.sync(root)
		for range 4 {
			for range 20 {
				d.disturb(r, dirs)
			}
			d.check(t, seed, len(dirs))
			luck := dice{r}
			if r.IntN(3) == 0 {
				for _, n := range dirs {
					d.sync(n)
				}
				luck = dice{}
			}
			before := d.shape(root)
			if err := d.cut(luck); err != nil {
				t.Fatal(err)
			}
			d.check(t, seed, len(dirs))
			if after := d.shape(root); luck.Rand == nil && after != before {
				t.Fatalf("seed %d: all was synced as %s and is left as %s", seed, before, after)
			}
		}
	}
}

// disturb moves one of the directories, or makes, links, moves, removes or syncs
// something; it may well fail.
func (d *disk) disturb(r *rand.Rand, dirs []*inode) {
	a, b := dirs[r.IntN(len(dirs))], dirs[r.IntN(len(dirs))]
	file, other := fmt.Sprint("f", r.IntN(3)), fmt.Sprint("f", r.IntN(3))
	switch r.IntN(6) {
	case 0, 1:
		for _, name := range slices.Sorted(maps.Keys(a.names)) {
			if n := a.names[name]; n.isDir() && !n.above(b) && b.names[name] == nil {
				d.rename(a.num, name, b.num, name, 0)
				return
			}
		}
	case 2:
		if n, err := d.create(a.num, file, 0o100644, 0, 0); err == nil {
			d.forget(n.num, 1)
		}
	case 3:
		if n := a.names[file]; n != nil {
			if _, err := d.link(n.num, b.num, other); err == nil {
				d.forget(n.num, 1)
			}
		}
	case 4:
		d.rename(a.num, file, b.num, other, 0)
		d.remove(b.num, file, false)
	case 5:
		d.sync(a)
	}
}

// above says whether other is n or below it.
func (n *inode) above(other *inode) bool {
	if n == other {
		return true
	}
	for _, below := range n.names {
		if below.isDir() && below.above(other) {
			return true
		}
	}
	return false
}

// shape is the whole tree by numbers.
func (d *disk) shape(n *inode) string {
	s := fmt.Sprint(n.num)
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		s += " (" + name + ": " + d.shape(n.names[name]) + ")"
	}
	return s
}

// check counts names from the top and compares.
func (d *disk) check(t *testing.T, seed uint64, dirs int) {
	t.Helper()
	links := map[*inode]int{d.nodes[rootNum]: 1}
	var walk func(n *inode)
	walk = func(n *inode) {
		for _, below := range n.names {
			if links[below]++; links[below] == 1 {
				walk(below)
			}
		}
	}
	walk(d.nodes[rootNum])
	count := 0
	for n, want := range links {
		if n.isDir() {
			count++
		}
		if n.links != want || n.isDir() && want != 1 || d.nodes[n.num] != n {
			t.Fatalf("seed %d: node %d has %d names and counts %d", seed, n.num, want, n.links)
		}
	}
	if count != dirs {
		t.Fatalf("seed %d: %d directories of %d are left", seed, count, dirs)
	}
	if len(d.journal) == 0 && len(d.nodes) != len(links) {
		t.Fatalf("seed %d: %d nodes for %d that have names", seed, len(d.nodes), len(links))
	}
}

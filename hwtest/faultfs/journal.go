//go:build linux

package faultfs

import "slices"

// edit is what happens to one name: it was a file or directory (or nothing: nil)
// and now is another.
type edit struct {
	dir      *inode
	name     string
	was, now *inode
}

// change is what happens to names in one step, to all of them or to none.
type change []edit

// place is a name in a directory; the zero place stands for the shape of the
// tree.
type place struct {
	dir  *inode
	name string
}

// places are what the change builds on and what later changes may build on.
// Moves of directories build on each other whatever their names: without their
// order two could end up inside each other.
func (c change) places() []place {
	var ps []place
	for _, e := range c {
		ps = append(ps, place{e.dir, e.name})
		if len(c) > 1 && e.now != nil && e.now.isDir() {
			ps = append(ps, place{})
		}
	}
	return ps
}

// within says whether the change is one of names in dir.
func (c change) within(dir *inode) bool {
	return slices.ContainsFunc(c, func(e edit) bool { return e.dir == dir })
}

// names says whether the change gives n a name or takes one away.
func (c change) names(n *inode) bool {
	return slices.ContainsFunc(c, func(e edit) bool { return e.was == n || e.now == n })
}

// record makes the change, which is not durable yet. Caller holds the mutex.
func (d *disk) record(c change) {
	d.journal = append(d.journal, c)
	for _, e := range c {
		e.dir.set(e.name, e.now)
		for _, n := range []*inode{e.dir, e.was, e.now} {
			n.keep(1)
		}
	}
	for _, e := range c {
		d.settle(e.was)
	}
}

// commit makes the changes that are wanted durable, with those that they build
// on. Caller holds the mutex.
func (d *disk) commit(wanted func(change) bool) {
	if !slices.ContainsFunc(d.journal, wanted) {
		return
	}
	chosen := d.choose(wanted)
	var done, rest []change
	for i, c := range d.journal {
		if chosen[i] {
			done = append(done, c)
		} else {
			rest = append(rest, c)
		}
	}
	d.journal = rest
	for _, c := range done {
		d.engrave(c)
	}
	for _, c := range done {
		for _, e := range c {
			if e.was != nil && e.was.isDir() && e.was.links == 0 {
				// Gone for good: what happened in it matters no more.
				d.commit(func(c change) bool { return c.within(e.was) })
			}
		}
	}
}

// choose marks the changes to commit, latest first, since each may need earlier
// ones.
func (d *disk) choose(wanted func(change) bool) []bool {
	chosen := make([]bool, len(d.journal))
	needed := map[place]bool{}
	found := false
	for i, c := range slices.Backward(d.journal) {
		if d.conf.Ordered {
			found = found || wanted(c)
			chosen[i] = found
			continue
		}
		places := c.places()
		if wanted(c) || slices.ContainsFunc(places, func(p place) bool { return needed[p] }) {
			chosen[i] = true
			for _, p := range places {
				needed[p] = true
			}
		}
	}
	return chosen
}

// engrave makes one change of the journal durable.
func (d *disk) engrave(c change) {
	for _, e := range c {
		e.dir.engrave(e.name, e.now)
	}
	for _, e := range c {
		for _, n := range []*inode{e.dir, e.was, e.now} {
			n.keep(-1)
			d.settle(n)
		}
	}
}

// survivors are the changes of the journal that a power cut spares.
func (d *disk) survivors(luck dice) []change {
	if d.conf.Ordered {
		return d.journal[:luck.upTo(int64(len(d.journal)))]
	}
	share := luck.share()
	var spared []change
	lost := map[place]bool{}
	for _, c := range d.journal {
		doomed := slices.ContainsFunc(c.places(), func(p place) bool { return lost[p] })
		if !doomed && luck.keeps(share) {
			spared = append(spared, c)
			continue
		}
		for _, p := range c.places() {
			lost[p] = true
		}
	}
	return spared
}

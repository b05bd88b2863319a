package peering

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
)

// This file says which mirrors a torrent has, and which of them work.

// maxWorking is how many mirrors bring a torrent at once; the others wait for one
// to be given up.
const maxWorking = 8

// Mirrors is a server that has files of any torrent, as an administrator knows it.
type Mirrors struct {
	// Match are patterns, as path.Match has them, of which the name of a file has to
	// fit one, in lower case; at least one.
	Match []string
	// URL is that of the file; or of a folder that has files by their names, if it
	// ends in a slash.
	URL string
}

func (m Mirrors) validate() error {
	var faults []error
	if err := checkURL(m.URL, "http", "https"); err != nil {
		faults = append(faults, fmt.Errorf("url: %w", err))
	}
	if len(m.Match) == 0 {
		faults = append(faults, errors.New("match: names no file"))
	}
	for _, pattern := range m.Match {
		if _, err := path.Match(pattern, ""); err != nil {
			faults = append(faults, fmt.Errorf("match: %q is not a pattern", clip(pattern)))
		}
	}
	return errors.Join(faults...)
}

// mirrorsOf are the configured mirrors of a torrent's files.
func (c Config) mirrorsOf(l *layout) (list []fileMirror) {
	for i, f := range l.files {
		name := path.Base(f.path)
		for _, m := range c.Mirrors {
			if f.pad || !slices.ContainsFunc(m.Match, func(pattern string) bool { return fits(pattern, name) }) {
				continue
			}
			address := m.URL
			if strings.HasSuffix(address, "/") {
				address += url.PathEscape(name)
			}
			list = append(list, fileMirror{i, address})
		}
	}
	return list
}

// fits says whether a name, in any case, is of a pattern.
func fits(pattern, name string) bool {
	ok, _ := path.Match(strings.ToLower(pattern), strings.ToLower(strings.ReplaceAll(name, "/", "_")))
	return ok
}

// addWebSeeds adds HTTP servers that have the whole torrent. Nothing is done
// before the info is known.
func (sh *share) addWebSeeds(urls []string) {
	if p := sh.piecesNow(); p != nil {
		for _, u := range urls {
			sh.addMirror(u, p.layout.seeded(u))
		}
	}
}

// addMirrors adds HTTP servers that have a file each.
func (sh *share) addMirrors(list []fileMirror) {
	if p := sh.piecesNow(); p != nil {
		for _, m := range list {
			sh.addMirror(m.url, map[int]string{m.file: m.url})
		}
	}
}

// addDuplicates adds mirrors of a file that one of them has named. What they bring
// is proved, so that whom it names matters little.
func (sh *share) addDuplicates(file int, urls []string) {
	for _, u := range urls {
		sh.addMirror(u, map[int]string{file: u})
	}
}

func (sh *share) piecesNow() *pieces {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.pieces
}

// addMirror adds a mirror that has files at these addresses, unless it is there
// or there are enough.
func (sh *share) addMirror(text string, files map[int]string) {
	pl := &sh.plan
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if len(pl.mirrors) >= maxHints || slices.ContainsFunc(pl.mirrors, func(m *mirror) bool { return m.url == text }) {
		return
	}
	m, err := newMirror(sh, text, files)
	if err != nil {
		sh.swarm.log.Info("passed over a mirror", "title", sh.title(), "err", err)
		return
	}
	pl.mirrors = append(pl.mirrors, m)
	pl.beginMore()
}

// beginMore has as many mirrors work as may; pl.mu is held.
func (pl *plan) beginMore() {
	for pl.begin != nil && pl.working < maxWorking && pl.begun < len(pl.mirrors) {
		pl.working++
		pl.begun++
		pl.begin(pl.mirrors[pl.begun-1])
	}
}

// startMirrors lets mirrors work until the function that it returns is called.
func (sh *share) startMirrors() (stop func()) {
	ctx, cancel := context.WithCancel(sh.ctx)
	var work sync.WaitGroup
	pl := &sh.plan
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.taken = map[int]bool{}
	pl.begin = func(m *mirror) {
		work.Go(func() {
			for !sh.hashesKnown() && ctx.Err() == nil {
				wait(ctx, sh.swarm.cfg.tick)
			}
			m.run(ctx)
			pl.mu.Lock()
			defer pl.mu.Unlock()
			pl.working--
			pl.beginMore()
		})
	}
	pl.beginMore()
	return func() {
		pl.mu.Lock()
		pl.begin = nil
		pl.mu.Unlock()
		cancel()
		work.Wait()
	}
}

// hashesKnown says whether every piece can be proved: of a v2 torrent that came
// as a magnet peers have to send the piece layers first.
func (sh *share) hashesKnown() bool {
	spec := sh.specNow()
	return spec.V1 != [20]byte{} || spec.layout.checkLayers(sh.t.Metainfo().PieceLayers) == nil
}

// mirrorsNow describes the mirrors.
func (sh *share) mirrorsNow() []Mirror {
	pl := &sh.plan
	pl.mu.Lock()
	defer pl.mu.Unlock()
	var all []Mirror
	for _, m := range pl.mirrors {
		all = append(all, m.snapshot())
	}
	return all
}

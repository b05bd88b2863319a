package peering

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/peering/feed"
	"github.com/cistern-edge/cistern/peering/metalink"
)

// Feed is a list of torrents that the box follows: an RSS or Atom feed, or a
// page with links to .torrent files. What is new in it is added by itself.
type Feed struct {
	URL string
	// Match are patterns, as path.Match has them, of which a torrent's name has to
	// fit one, in lower case; empty: all fit.
	Match []string
	// MaxBytes bounds each torrent's size; 0 means Config.MaxBytes.
	MaxBytes int64
	// Every is the time between two looks, at least a minute; 0 means 30 minutes.
	Every time.Duration
}

func (f Feed) validate() error {
	var faults []error
	if err := checkURL(f.URL, "http", "https"); err != nil {
		faults = append(faults, fmt.Errorf("url: %w", err))
	}
	for _, pattern := range f.Match {
		if _, err := path.Match(pattern, ""); err != nil {
			faults = append(faults, fmt.Errorf("match: %q is not a pattern", clip(pattern)))
		}
	}
	if f.MaxBytes < 0 {
		faults = append(faults, fmt.Errorf("max_bytes: %d is negative", f.MaxBytes))
	}
	if f.Every != 0 && f.Every < time.Minute {
		faults = append(faults, fmt.Errorf("every: %v is less than a minute", f.Every))
	}
	return errors.Join(faults...)
}

// takes says whether an item's name fits.
func (f Feed) takes(name string) bool {
	return len(f.Match) == 0 || slices.ContainsFunc(f.Match, func(pattern string) bool { return fits(pattern, name) })
}

// Followed is how it goes with a feed or the watched folder.
type Followed struct {
	What   string    `json:"what"`
	Looked time.Time `json:"looked"`
	// Added counts torrents since the start. Err is what went wrong last.
	Added int    `json:"added"`
	Err   string `json:"err,omitempty"`
}

const (
	// perLook is how many torrents a feed may bring at one look: a filter that fits
	// all of an archive does not fill the store at once.
	perLook    = 16
	maxTries   = 5
	maxSeen    = 10_000
	watchEvery = 5 * time.Second
)

// follower adds what feeds and the watched folder have that is new. What it has
// seen it keeps, so that a torrent that somebody removed does not come back.
type follower struct {
	swarm *Swarm
	due   []time.Time          // of each feed
	tries map[string]int       // failures of what may be tried again
	seen  map[string]time.Time // by link, or name and time of a file
	sizes map[string]int64     // of the folder's files at the last look

	// mu guards what follows.
	mu     sync.Mutex
	status []Followed // of each feed, then of the folder
}

func newFollower(s *Swarm) *follower {
	f := &follower{
		swarm: s, due: make([]time.Time, len(s.cfg.Feeds)), tries: map[string]int{}, seen: map[string]time.Time{}, sizes: map[string]int64{},
	}
	for _, feed := range s.cfg.Feeds {
		f.status = append(f.status, Followed{What: feed.URL})
	}
	if s.cfg.Watch != "" {
		f.status = append(f.status, Followed{What: s.cfg.Watch})
	}
	return f
}

// run looks until ctx is done.
func (f *follower) run(ctx context.Context) {
	if len(f.status) == 0 {
		return
	}
	if text, err := os.ReadFile(f.file()); err == nil {
		if err := json.Unmarshal(text, &f.seen); err != nil {
			f.swarm.log.Warn("failed to read what was followed", "err", err)
			f.seen = map[string]time.Time{}
		}
	}
	var folder time.Time // when it is due
	for ; ctx.Err() == nil; wait(ctx, f.swarm.cfg.tick) {
		for i, feed := range f.swarm.cfg.Feeds {
			if now := time.Now(); !now.Before(f.due[i]) {
				f.due[i] = now.Add(cmp.Or(feed.Every, 30*time.Minute))
				f.report(ctx, i, func() (int, error) { return f.look(ctx, feed) })
			}
		}
		if now := time.Now(); f.swarm.cfg.Watch != "" && !now.Before(folder) {
			folder = now.Add(f.swarm.cfg.watchEvery)
			f.report(ctx, len(f.status)-1, func() (int, error) { return f.lookInFolder(ctx) })
		}
	}
}

func (f *follower) file() string { return filepath.Join(f.swarm.cfg.Dir, "followed.json") }

// report keeps what came of a look.
func (f *follower) report(ctx context.Context, i int, look func() (int, error)) {
	known := len(f.seen)
	added, err := look()
	if ctx.Err() != nil {
		return
	}
	if len(f.seen) != known {
		f.trim()
		text, jerr := json.Marshal(f.seen)
		err = errors.Join(err, jerr, writeFile(f.file(), text))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st := &f.status[i]
	before := st.Err
	st.Looked, st.Added, st.Err = time.Now(), st.Added+added, ""
	if err != nil {
		if st.Err = err.Error(); st.Err != before {
			f.swarm.log.Warn("failed to follow", "what", st.What, "err", err)
		}
	}
}

// trim forgets what was seen longest ago.
func (f *follower) trim() {
	if len(f.seen) <= maxSeen {
		return
	}
	type sight struct {
		key string
		at  time.Time
	}
	var all []sight
	for key, at := range f.seen {
		all = append(all, sight{key, at})
	}
	slices.SortFunc(all, func(a, b sight) int { return a.at.Compare(b.at) })
	for _, s := range all[:len(all)-maxSeen*9/10] {
		delete(f.seen, s.key)
	}
}

// look reads a feed and adds what is new.
func (f *follower) look(ctx context.Context, from Feed) (added int, err error) {
	text, at, err := f.swarm.get(ctx, from.URL, feed.MaxText)
	if err != nil {
		return 0, err
	}
	items, err := feed.Parse(at, text)
	if err != nil {
		return 0, fmt.Errorf("%q: %w", clip(from.URL), err)
	}
	now := time.Now()
	var failed []error
	for _, item := range items {
		if _, known := f.seen[item.Link]; known {
			f.seen[item.Link] = now // still listed: it is not forgotten
			continue
		}
		if !from.takes(item.Name) || added >= perLook || ctx.Err() != nil {
			continue
		}
		ok, err := f.take(ctx, item.Link, func() error { return f.swarm.addFrom(ctx, []byte(item.Link), from.MaxBytes) })
		if err != nil {
			failed = append(failed, fmt.Errorf("%q: %w", clip(item.Name), err))
		}
		if ok {
			added++
		}
	}
	return added, errors.Join(failed[:min(len(failed), 5)]...)
}

// take adds one torrent, unless it failed too often.
func (f *follower) take(ctx context.Context, key string, add func() error) (ok bool, err error) {
	if err = add(); err != nil && ctx.Err() == nil {
		f.tries[key]++
	}
	if err == nil || errors.Is(err, ErrSpec) || f.tries[key] >= maxTries {
		delete(f.tries, key)
		f.seen[key] = time.Now()
	}
	return err == nil, err
}

// lookInFolder adds the .torrent files and metalinks of the watched folder that
// are new and are not being written any more.
func (f *follower) lookInFolder(ctx context.Context) (added int, err error) {
	entries, err := os.ReadDir(f.swarm.cfg.Watch)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	sizes := map[string]int64{}
	var failed []error
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !slices.Contains([]string{".torrent", ".meta4"}, strings.ToLower(filepath.Ext(e.Name()))) {
			continue
		}
		key := fmt.Sprintf("file:%s %d", e.Name(), info.ModTime().UnixNano())
		size, before := f.sizes[key]
		sizes[key] = info.Size()
		if _, known := f.seen[key]; known {
			f.seen[key] = now
			continue
		}
		if !before || size != info.Size() {
			continue // until the next look
		}
		ok, err := f.take(ctx, key, func() error { return f.addFile(ctx, filepath.Join(f.swarm.cfg.Watch, e.Name()), info) })
		if err != nil {
			failed = append(failed, fmt.Errorf("%q: %w", clip(e.Name()), err))
		}
		if ok {
			added++
		}
	}
	f.sizes = sizes
	return added, errors.Join(failed[:min(len(failed), 5)]...)
}

func (f *follower) addFile(ctx context.Context, file string, info fs.FileInfo) error {
	if info.Size() == 0 || info.Size() > MaxMetainfo {
		return fmt.Errorf("%w: the file has %d bytes", ErrSpec, info.Size())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if text[0] != 'd' && !metalink.IsMetalink(text) {
		return fmt.Errorf("%w: the file is neither a .torrent file nor a metalink", ErrSpec)
	}
	return f.swarm.addFrom(ctx, text, 0)
}

func (f *follower) statusNow() []Followed {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.status)
}

// baseOf is where a text came from, after redirects.
func baseOf(u *url.URL) *url.URL {
	base := *u
	base.User = nil
	return &base
}

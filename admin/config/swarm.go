package config

import (
	"fmt"
	"net/url"
	"path"
	"strconv"
	"time"
)

// Ratio is how many times the size of something, written "1.5"; "0" is no bound.
type Ratio float64

// UnmarshalText reads a ratio.
func (r *Ratio) UnmarshalText(text []byte) error {
	n, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(n >= 0 && n <= 1000) {
		return fmt.Errorf("ratio %q: write a number from 0 to 1000, like \"1.5\"", clip(text))
	}
	*r = Ratio(n)
	return nil
}

// MarshalText gives String.
func (r Ratio) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String is the shortest way to write it.
func (r Ratio) String() string { return strconv.FormatFloat(float64(r), 'f', -1, 64) }

// UploadHours is a part of each day with an upload of its own.
type UploadHours struct {
	From Clock `toml:"from" comment:"Begin, local time, such as \"08:00\"."`
	To   Clock `toml:"to" comment:"End, such as \"16:30\"; over midnight if it is not later than from."`
	// Upload within; 0: unlimited.
	Upload Rate `toml:"upload" comment:"Upload to the outside within; \"0\" is unlimited."`
	// Pause ends seeding to the outside within.
	Pause bool `toml:"pause" comment:"Whether complete torrents are kept from the outside within."`
}

// Feed is a list of torrents to follow.
type Feed struct {
	// URL of an RSS or Atom feed, or a page.
	URL string `toml:"url" comment:"Address of an RSS or Atom feed, or of a page with links to .torrent files."`
	// Match are patterns of names, of which one has to fit. Empty: all.
	Match []string `toml:"match" comment:"Names that are taken, with * for any text, such as \"debian-*-amd64-netinst*\"; empty: all."`
	// MaxSize of a torrent; 0: any.
	MaxSize Size `toml:"max_size" comment:"Larger torrents are left; 0: none is."`
	// Every is the time between two looks, at least a minute; 0: 30 minutes.
	Every Duration `toml:"every" comment:"Time between two looks, such as \"1h\"; \"0s\": 30 minutes."`
}

// Mirror is a server that has files of torrents.
type Mirror struct {
	// Match are patterns of names of files, of which one has to fit.
	Match []string `toml:"match" comment:"Names of files, with * for any text, such as \"debian-*.iso\"."`
	// URL of the file, or of a folder.
	URL string `toml:"url" comment:"Address of the file; or of a folder that has files by their names, with a slash at the end."`
}

func (m Mirror) check(f *Faults, at string) {
	webAddress(f, at+"url", m.URL)
	if len(m.Match) == 0 {
		f.add(0, at+"match", "names no file; \"*\" is every one")
	}
	patterns(f, at+"match", m.Match)
}

func webAddress(f *Faults, key, s string) {
	if u, err := url.Parse(s); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		f.add(0, key, "%q is not an http or https URL", clip([]byte(s)))
	}
}

func patterns(f *Faults, key string, list []string) {
	for _, pattern := range list {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			f.add(0, key, "%q is not a pattern", clip([]byte(pattern)))
		}
	}
}

func (p Peering) checkSeeding(f *Faults) {
	if d := time.Duration(p.SeedTime); d < 0 || d > 3660*day {
		f.add(0, "peering.seed_time", "%v is not between 0 and 3660d", p.SeedTime)
	}
	if p.LANUpload < 0 {
		f.add(0, "peering.lan_upload", "%v is negative", p.LANUpload)
	}
	for i, m := range p.Mirrors {
		m.check(f, fmt.Sprintf("peering.mirror[%d].", i))
	}
	for i, feed := range p.Feeds {
		at := fmt.Sprintf("peering.feed[%d].", i)
		webAddress(f, at+"url", feed.URL)
		patterns(f, at+"match", feed.Match)
		if d := time.Duration(feed.Every); d != 0 && (d < time.Minute || d > 30*day) {
			f.add(0, at+"every", "%v is not between 1m and 720h", d)
		}
	}
}

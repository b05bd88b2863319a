// Package journal remembers how the last requests were answered: what decided,
// how long each step took and where the answer came from. It is bounded in memory
// whatever comes: quick hits, of which there are many and of which there is little
// to say, cannot push out the misses, nor these the slow ones and the failures,
// for which people ask the next day.
//
// It refuses to decide anything and to do I/O but in Save and Load. Start reading
// at [Journal.Add].
package journal

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Entry is one request and its answer. Durations count from its arrival; zero
// stands for what did not happen.
type Entry struct {
	At     time.Time  `json:"at"`
	Client netip.Addr `json:"client"`
	Method string     `json:"method"`
	// URL is the address of what was asked for, as caches name it; the target of
	// the request where it names nothing outside.
	URL string `json:"url"`
	// Status of the answer; 0 if the client left before there was one.
	Status int `json:"status"`
	// Hit, Fwd, FwdStatus, Stored and Collapsed are as in Cache-Status (RFC 9211).
	Hit       bool   `json:"hit,omitempty"`
	Fwd       string `json:"fwd,omitempty"`
	FwdStatus int    `json:"fwd_status,omitempty"`
	Stored    bool   `json:"stored,omitempty"`
	Collapsed bool   `json:"collapsed,omitempty"`
	// Why names the rule that decided whether what is stored answers, Detail what
	// came of it.
	Why    string `json:"why,omitempty"`
	Detail string `json:"detail,omitempty"`
	// Object is the number of the object that has the body, 0 for none.
	Object uint64 `json:"object,omitempty"`
	// Bytes of the body that were sent.
	Bytes int64 `json:"bytes"`
	// Asked is when the origin was asked, Answered when the head of its answer was
	// here, First when the first byte went to the client, Took when the last did.
	Asked    time.Duration `json:"asked,omitempty"`
	Answered time.Duration `json:"answered,omitempty"`
	First    time.Duration `json:"first"`
	Took     time.Duration `json:"took"`
}

// What makes an answer slow: so long until its first byte, or so few bytes in a
// second once it took so long.
const (
	slowFirst = time.Second
	slowTook  = 10 * time.Second
	slowRate  = 1 << 20
)

// Slow reports whether somebody may ask why: it was slow or failed. A tunnel is
// open for as long as its ends like.
func (e *Entry) Slow() bool {
	dragged := e.Took >= slowTook && float64(e.Bytes) < slowRate*e.Took.Seconds() && e.Method != http.MethodConnect
	return e.Status >= 500 || e.Status == 0 || e.First >= slowFirst || dragged
}

// Bounds, in entries.
const (
	maxHits  = 2048
	maxOther = 6144
	maxSlow  = 2048
)

// maxText bounds each text of an entry, in bytes.
const maxText = 500

// Journal keeps entries. All methods are safe for concurrent use; the zero
// Journal is empty.
type Journal struct {
	hits, other, slow ring
}

// Add takes down an entry.
func (j *Journal) Add(e *Entry) {
	switch {
	case e.Slow():
		j.slow.add(e, maxSlow)
	case e.Hit:
		j.hits.add(e, maxHits)
	default:
		j.other.add(e, maxOther)
	}
}

// ring keeps the last entries; it grows as they come.
type ring struct {
	// mu guards what follows.
	mu      sync.Mutex
	entries []Entry
	next    int // where the next one goes, once it is full
	added   uint64
}

// add keeps a copy of an entry.
func (r *ring) add(e *Entry, most int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var at *Entry
	if len(r.entries) < most {
		r.entries = append(r.entries, *e)
		at = &r.entries[len(r.entries)-1]
	} else {
		at = &r.entries[r.next]
		*at = *e
		r.next = (r.next + 1) % most
	}
	r.added++
	for _, text := range []*string{&at.Method, &at.URL, &at.Why, &at.Detail} {
		if len(*text) > maxText { // a copy: the rest is let go
			*text = strings.ToValidUTF8((*text)[:maxText-3], "") + "…"
		}
	}
}

// snapshot gives the entries that fit.
func (r *ring) snapshot(fits func(*Entry) bool) (list []Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.entries {
		if fits(&r.entries[i]) {
			list = append(list, r.entries[i])
		}
	}
	return list
}

// Query says which entries are wanted; what is zero does not matter.
type Query struct {
	// URL is what an entry has; one that ends in "*" is how it begins.
	URL string
	// Client is a network.
	Client       netip.Prefix
	Since, Until time.Time
	// Slow wants only what was slow or failed.
	Slow bool
	// Limit is how many are given at most; 0: all.
	Limit int
}

func (q *Query) fits(e *Entry) bool {
	begin, open := strings.CutSuffix(q.URL, "*")
	switch {
	case open && !strings.HasPrefix(e.URL, begin), !open && q.URL != "" && e.URL != q.URL:
		return false
	case q.Client.IsValid() && !q.Client.Contains(e.Client):
		return false
	case !q.Since.IsZero() && e.At.Before(q.Since), !q.Until.IsZero() && e.At.After(q.Until):
		return false
	}
	return true
}

// Find gives the entries that a query fits, newest first.
func (j *Journal) Find(q Query) []Entry {
	if len(q.URL) > maxText && !strings.HasSuffix(q.URL, "*") {
		q.URL = strings.ToValidUTF8(q.URL[:maxText-3], "") + "…"
	}
	list := j.slow.snapshot(q.fits)
	if !q.Slow {
		list = append(append(list, j.other.snapshot(q.fits)...), j.hits.snapshot(q.fits)...)
	}
	slices.SortStableFunc(list, func(a, b Entry) int { return cmp.Compare(b.At.UnixNano(), a.At.UnixNano()) })
	if q.Limit > 0 && len(list) > q.Limit {
		list = list[:q.Limit]
	}
	return list
}

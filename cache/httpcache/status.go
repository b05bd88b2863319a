package httpcache

import (
	"net/http"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// Name is how this cache calls itself in Cache-Status.
const Name = "cistern"

// Fwd is why a request was forwarded (RFC 9211 §2.2).
type Fwd string

// The reasons that RFC 9211 registers.
const (
	FwdBypass   Fwd = "bypass"    // the cache was told not to handle the request
	FwdMethod   Fwd = "method"    // the method's semantics ask for it
	FwdURIMiss  Fwd = "uri-miss"  // nothing is stored for the URL
	FwdVaryMiss Fwd = "vary-miss" // other variants are stored
	FwdMiss     Fwd = "miss"      // nothing could be used
	FwdRequest  Fwd = "request"   // something could, but the request asked not to
	FwdStale    Fwd = "stale"     // what is stored is stale
	FwdPartial  Fwd = "partial"   // only a part of what is asked for is stored
)

// CacheStatus is this cache's member of the Cache-Status field (RFC 9211 §2).
type CacheStatus struct {
	Hit       bool // answered without going forward; Fwd and FwdStatus are then left out
	Fwd       Fwd
	FwdStatus int           // status of the origin's answer, 0 to leave it out
	TTL       time.Duration // what remains of freshness, sent when HasTTL
	HasTTL    bool
	Stored    bool // the answer was stored
	Collapsed bool // the request waited for another one's fetch
	Key       string
	Detail    string
}

// String is the member as it is sent. Characters that a Structured Fields
// string cannot hold become "?".
func (s CacheStatus) String() string {
	item := httpsfv.NewItem(httpsfv.Token(Name))
	p := item.Params
	if s.Hit {
		p.Add("hit", true)
	} else {
		if s.Fwd != "" {
			p.Add("fwd", httpsfv.Token(s.Fwd))
		}
		if s.FwdStatus != 0 {
			p.Add("fwd-status", s.FwdStatus)
		}
	}
	if s.HasTTL {
		p.Add("ttl", int64(s.TTL.Truncate(time.Second)/time.Second))
	}
	if s.Stored {
		p.Add("stored", true)
	}
	if s.Collapsed {
		p.Add("collapsed", true)
	}
	if s.Key != "" {
		p.Add("key", printable(s.Key))
	}
	if s.Detail != "" {
		p.Add("detail", printable(s.Detail))
	}
	out, err := httpsfv.Marshal(item)
	if err != nil {
		return Name
	}
	return out
}

// AppendTo adds s to h, behind the members of caches nearer to the origin.
func (s CacheStatus) AppendTo(h http.Header) { h.Add("Cache-Status", s.String()) }

// printable replaces what an sf-string cannot hold (RFC 9651 §3.3.3).
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

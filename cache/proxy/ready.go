package proxy

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// ready is a stored answer to plain requests, written out but for what changes
// with time. It is not changed once made.
type ready struct {
	target string // that it answers
	key    string
	meta   []byte // that it was made of
	head   []byte // status line and fields, up to the value of Age
	after  []byte // what stands between that and the rest of freshness
	vary   []string
	resp   *httpcache.Response
	born   time.Time // when its age was 0
	stale  time.Time // when it is no longer fresh
	why    string    // it is fresh
}

// maxReady is how many answers are kept ready; each takes about a kilobyte.
const maxReady = 4096

// readies are the answers that were asked for lately, by target. Safe for
// concurrent use.
type readies struct {
	// mu guards what follows.
	mu       sync.RWMutex
	byTarget map[string]*ready
}

func (l *readies) get(target []byte) *ready {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.byTarget[string(target)]
}

// put keeps an answer; nil drops the one that was there.
func (l *readies) put(target []byte, r *ready) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r == nil {
		delete(l.byTarget, string(target))
		return
	}
	if len(l.byTarget) >= maxReady {
		for any := range l.byTarget {
			delete(l.byTarget, any)
			break
		}
	}
	l.byTarget[string(target)] = r
}

// fresh finds the answer to a plain request if the store has it whole, in
// memory and fresh. What it says is what resolve and sendFound would.
func (s *Server) fresh(h *plainHead, now time.Time) (*ready, cache.Hit) {
	r := s.readies.get(h.target)
	var key string
	if r != nil {
		key = r.key
	} else if key = plainKey(h.target); key == "" {
		return nil, cache.Hit{}
	}
	if s.denied(key) != nil {
		return nil, cache.Hit{}
	}
	hit, ok := s.store.Hit(key)
	if !ok {
		if r != nil {
			s.readies.put(h.target, nil)
		}
		return nil, hit
	}
	if r == nil || !bytes.Equal(r.meta, hit.Meta) {
		r = s.prepare(string(h.target), key, hit, now)
		s.readies.put(h.target, r)
	}
	if r == nil || !now.Before(r.stale) || !r.matches(h) {
		return nil, hit
	}
	return r, hit
}

// plainKey is the cache key of a target, "" if it has none.
func plainKey(target []byte) string {
	u, err := url.ParseRequestURI(string(target))
	if err != nil {
		return ""
	}
	key, err := httpcache.Key(u)
	if err != nil {
		return ""
	}
	return key
}

// prepare writes a stored answer out; nil if it does not answer plain requests.
func (s *Server) prepare(target, key string, hit cache.Hit, now time.Time) *ready {
	resp, _, ok := decodeStored(hit.Meta)
	if !ok || resp.Status != http.StatusOK || resp.Header.Get("Date") == "" {
		return nil
	}
	plain := &http.Request{Method: http.MethodGet, Header: http.Header{}}
	vary := httpcache.VaryFields(resp.Header)
	alike := *resp
	alike.Variant = httpcache.VaryKey(vary, plain.Header) // whether it matches is asked for each request
	v := httpcache.Decide(plain, &alike, now)
	if v.Action != httpcache.Serve || v.Stale {
		return nil
	}
	p := plan{head: httpcache.ResponseHeader(resp, 0), status: http.StatusOK, size: int64(len(hit.Body))}
	p.finish()
	leafDigests(p.head, hit.Body)
	httpcache.AddVia(p.head, "HTTP/1.1", s.cfg.Name)
	p.head.Del("Age")
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 200 OK\r\n")
	_ = p.head.Write(&head) // a Buffer takes everything
	head.WriteString("Age: ")
	status := httpcache.CacheStatus{Hit: true, HasTTL: true}.String()
	return &ready{
		target: target, key: key, meta: hit.Meta, head: head.Bytes(), vary: vary, resp: resp,
		after: []byte("\r\nCache-Status: " + strings.TrimSuffix(status, "0")),
		born:  now.Add(-v.Age), stale: now.Add(v.TTL), why: v.Why,
	}
}

// matches reports whether a request may have the answer as far as Vary goes.
func (r *ready) matches(h *plainHead) bool {
	if len(r.vary) == 0 {
		return r.resp.Variant == ""
	}
	asks := http.Header{}
	for _, f := range h.fields {
		name := textproto.CanonicalMIMEHeaderKey(string(f.name))
		asks[name] = append(asks[name], string(f.value))
	}
	return httpcache.MatchesVary(&http.Request{Header: asks}, r.resp)
}

// appendTo writes the head of the answer.
func (r *ready) appendTo(b []byte, now time.Time) []byte {
	b = append(b, r.head...)
	b = strconv.AppendInt(b, int64(now.Sub(r.born)/time.Second), 10)
	b = append(b, r.after...)
	b = strconv.AppendInt(b, int64(r.stale.Sub(now)/time.Second), 10)
	return append(b, "\r\n\r\n"...)
}

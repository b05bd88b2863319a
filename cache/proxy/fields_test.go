package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
)

// TestInterimAnswersArePassedOn: 103 reaches the client that asked, also past
// the store, and is no part of what is stored.
func TestInterimAnswersArePassedOn(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.WriteHeader(http.StatusEarlyHints)
		clear(w.Header())
		if r.URL.Path == "/stored" {
			w.Header().Set("Cache-Control", "max-age=60")
		}
		_, _ = io.WriteString(w, "x")
	})
	b := simpleBox(t)
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/stored", 1}, {"GET", "/stored", 0}, {"GET", "/passed", 1}, {"POST", "/passed", 1}, {"HEAD", "/passed", 1},
	} {
		var heard []textproto.MIMEHeader
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
			if status == http.StatusEarlyHints {
				heard = append(heard, h)
			}
			return nil
		}})
		req, err := http.NewRequestWithContext(ctx, c.method, s.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := b.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if len(heard) != c.want {
			t.Errorf("%s %s: %d interim answers, want %d", c.method, c.path, len(heard), c.want)
		}
		for _, h := range heard {
			if h.Get("Link") == "" || h.Get("X-Hop") != "" {
				t.Errorf("%s %s: interim fields are %v", c.method, c.path, h)
			}
		}
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Link") != "" {
			t.Errorf("%s %s: %d, Link %q", c.method, c.path, resp.StatusCode, resp.Header.Get("Link"))
		}
	}
	old := b.raw("GET " + s.URL + "/passed HTTP/1.0\r\n\r\n")
	if !strings.HasPrefix(old, "HTTP/1.0 200") {
		t.Errorf("HTTP/1.0 got %.40q", old)
	}
}

// TestFieldsForOneClientOnly: what private="…" and no-cache="…" name goes to the
// client whose request brought it, and to no other (RFC 9111 §5.2.2).
func TestFieldsForOneClientOnly(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", `max-age=60, no-cache="set-cookie", private="x-mine"`)
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("X-Mine", "1")
		_, _ = io.WriteString(w, "x")
	})
	b := simpleBox(t)
	for i, want := range []string{"a=b 1", " "} {
		r := b.get(s.URL + "/")
		if got := r.Header.Get("Set-Cookie") + " " + r.Header.Get("X-Mine"); got != want {
			t.Errorf("request %d: got %q, want %q (%s)", i, got, want, r.status())
		}
	}
}

// TestFieldsComeOutAsTheyWere: a value need not be UTF-8 (obs-text, RFC 9110
// §5.5).
func TestFieldsComeOutAsTheyWere(t *testing.T) {
	const tag, name = "\"\xe9\"", "attachment; filename=\"caf\xe9.iso\""
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", tag)
		w.Header().Set("Content-Disposition", name)
		w.Header().Set("X-UTF-8", "café")
		_, _ = io.WriteString(w, "x")
	})
	b := simpleBox(t)
	for i := range 2 {
		r := b.get(s.URL + "/")
		if got := r.Header.Get("Content-Disposition"); got != name || r.Header.Get("ETag") != tag || r.Header.Get("X-UTF-8") != "café" {
			t.Errorf("request %d: %q, %q, %q", i, got, r.Header.Get("ETag"), r.Header.Get("X-UTF-8"))
		}
	}
	if got := fmt.Sprint(b.get(s.URL+"/", "If-None-Match: "+tag).StatusCode); got != "304" {
		t.Errorf("If-None-Match: %s", got)
	}
	if len(s.requests()) != 1 {
		t.Errorf("%d requests at the origin", len(s.requests()))
	}
}

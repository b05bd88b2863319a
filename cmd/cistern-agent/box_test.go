package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
	"github.com/cistern-edge/cistern/cache/origin"
	"github.com/cistern-edge/cistern/multicast"
)

// fakeDesk answers like the box's desk.
type fakeDesk struct {
	offer *content.Offer
	err   error
	asked []string
}

func (d *fakeDesk) Open(_ context.Context, req *http.Request) (*content.Offer, error) {
	d.asked = append(d.asked, req.URL.String())
	return d.offer, d.err
}

func (d *fakeDesk) OpenName(_ context.Context, name string) (*content.Offer, error) {
	d.asked = append(d.asked, name)
	return d.offer, d.err
}

func (d *fakeDesk) Resume(_ context.Context, id content.ID) (*content.Offer, error) {
	d.asked = append(d.asked, id.String())
	return d.offer, d.err
}

// boxProxy is the box's proxy: it says what it was asked for.
func boxProxy(t *testing.T, d *fakeDesk) (*box, *atomic.Int64) {
	t.Helper()
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Etag", `"a"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(fmt.Sprintf("%s %s", r.Method, r.RequestURI)))
	}))
	t.Cleanup(srv.Close)
	b, err := newBox(srv.URL, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.plain.Close)
	b.member = d
	return b, &asked
}

func request(t *testing.T, method string, fields ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://origin.example/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		req.Header.Set(f, "x")
	}
	return req
}

func TestOpenAsksTheDeskThenTheProxy(t *testing.T) {
	promised := &content.Offer{Status: http.StatusOK}
	for _, c := range []struct {
		name   string
		err    error
		method string
		fields []string
		desk   bool // it is asked
		proxy  bool // it answers
	}{
		{name: "promised", method: http.MethodGet, desk: true},
		{name: "bypass", err: fmt.Errorf("%w: private", multicast.ErrBypass), method: http.MethodGet, desk: true, proxy: true},
		{name: "no desk", err: errors.New("connection refused"), method: http.MethodGet, desk: true, proxy: true},
		{name: "post", method: http.MethodPost, proxy: true},
		{name: "head", method: http.MethodHead, proxy: true},
		{name: "range", method: http.MethodGet, fields: []string{"Range"}, proxy: true},
		{name: "condition", method: http.MethodGet, fields: []string{"If-None-Match"}, proxy: true},
	} {
		d := &fakeDesk{offer: promised, err: c.err}
		b, asked := boxProxy(t, d)
		offer, err := b.Open(t.Context(), request(t, c.method, c.fields...))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if offer.Body != nil {
			offer.Body.Close()
		}
		if (len(d.asked) > 0) != c.desk || (asked.Load() > 0) != c.proxy || (offer == promised) == c.proxy {
			t.Errorf("%s: desk asked for %v, proxy %d times, %+v", c.name, d.asked, asked.Load(), offer)
		}
	}
}

func TestResumeAsksTheDeskThenTheProxy(t *testing.T) {
	stored := httpcache.NewResponse(request(t, http.MethodGet), http.StatusOK, http.Header{"Etag": {`"a"`}}, time.Now(), time.Now())
	for _, c := range []struct {
		err    error
		status int
		body   string
	}{
		{nil, http.StatusPartialContent, ""},
		{multicast.ErrBypass, http.StatusPartialContent, " http://origin.example/x"},
		{errors.New("connection refused"), http.StatusPartialContent, " http://origin.example/x"},
	} {
		b, _ := boxProxy(t, &fakeDesk{offer: &content.Offer{Status: http.StatusOK}, err: c.err})
		offer, err := b.Resume(t.Context(), request(t, http.MethodGet), stored, content.Range{Off: 3, End: math.MaxInt64})
		if err != nil {
			t.Errorf("%v: %v", c.err, err)
			continue
		}
		var body []byte
		if offer.Body != nil {
			body, _ = io.ReadAll(offer.Body)
			offer.Body.Close()
		}
		if offer.Status != c.status || string(body) != c.body {
			t.Errorf("%v: %d %q", c.err, offer.Status, body)
		}
	}
}

func TestOpenObject(t *testing.T) {
	d := &fakeDesk{offer: &content.Offer{}}
	b, _ := boxProxy(t, d)
	id := content.ID{Root: content.Hash{1}, Size: 5}
	for _, name := range []string{"", "btih:ab/x"} {
		if _, err := b.openObject(t.Context(), id, name); err != nil {
			t.Error(err)
		}
	}
	if got := fmt.Sprint(d.asked); got != fmt.Sprint([]string{id.String(), "btih:ab/x"}) {
		t.Errorf("asked for %s", got)
	}
}

// What this host's clients may not reach through the box, they may not reach
// through its agent.
func TestTunnelsAreGuarded(t *testing.T) {
	b, _ := boxProxy(t, &fakeDesk{})
	for _, address := range []string{"127.0.0.1:443", "[::1]:443", "10.0.0.1:443", "169.254.169.254:443"} {
		conn, err := b.dial(t.Context(), "tcp", address)
		if conn != nil {
			conn.Close()
		}
		var refused *origin.RefusedError
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// Ranges come from the box over plain HTTP: whoever answers in its place must
// not send this host elsewhere.
func TestRangesFollowNoRedirect(t *testing.T) {
	var asked atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer elsewhere.Close()
	srv := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	defer srv.Close()
	b, err := newBox(srv.URL, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer b.plain.Close()
	resp, err := b.client.Get(srv.URL + "/o/x")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusFound || asked.Load() != 0 {
		t.Errorf("status %d, elsewhere was asked %d times", resp.StatusCode, asked.Load())
	}
}

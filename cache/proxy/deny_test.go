package proxy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// denied checks that an answer says why there is none.
func (b *box) denied(method, target string) {
	b.t.Helper()
	r := b.do(method, target)
	if r.StatusCode != http.StatusUnavailableForLegalReasons || method != http.MethodHead && !strings.Contains(string(r.body), "a court said so") {
		b.t.Errorf("%s %s: %d %q", method, target, r.StatusCode, r.body)
	}
}

func TestTakedownReachesEveryAddress(t *testing.T) {
	body := testBody(1 << 20)
	s := newSite(t, file(body, `"e"`, "max-age=60"))
	b := newBox(t, t.TempDir(), loopback(t), nil, slowTorrents(func(context.Context) {}))
	base := "http://" + b.addr
	b.get(s.URL + "/x")
	b.settle()
	info := b.store.List()[0]
	get := base + "/get/http/" + strings.TrimPrefix(s.URL, "http://") + "/x"
	if r := b.get(base + "/o/" + info.ID.String()); r.StatusCode != http.StatusOK {
		t.Fatalf("before: %d", r.StatusCode)
	}
	before := len(s.requests())
	if _, err := b.store.Purge(s.URL+"/*", "a court said so", "test"); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		b.denied(method, s.URL+"/x")
	}
	b.denied(http.MethodGet, s.URL+"/another") // the pattern has it too
	b.denied(http.MethodGet, get)
	b.denied(http.MethodGet, get+"?torrent")
	if r := b.get(base + "/o/" + info.ID.String()); r.StatusCode != http.StatusNotFound {
		t.Errorf("by identity: %d", r.StatusCode)
	}
	req, _ := http.NewRequest(http.MethodGet, s.URL+"/x", nil)
	if _, err := b.Want(t.Context(), req); err == nil || !strings.Contains(err.Error(), "a court said so") {
		t.Errorf("an agent's question: %v", err)
	}
	if n := len(s.requests()); n != before {
		t.Errorf("the origin was asked %d times", n-before)
	}
	if err := b.store.Lift(s.URL+"/*", "test"); err != nil {
		t.Fatal(err)
	}
	if r := b.get(s.URL + "/x"); r.StatusCode != http.StatusOK {
		t.Errorf("once lifted: %d", r.StatusCode)
	}
}

func TestTakedownByIdentityAndInfohash(t *testing.T) {
	body := testBody(300_000)
	s := newSite(t, file(body, `"e"`, "max-age=60"))
	b := newBox(t, t.TempDir(), loopback(t), nil, slowTorrents(func(context.Context) {}))
	base := "http://" + b.addr
	b.get(s.URL + "/x")
	b.settle()
	info := b.store.List()[0]
	hash := strings.Repeat("ab", 20)
	for _, what := range []string{info.ID.String(), "btih:" + hash, fmt.Sprintf("sha256:%x", sha256.Sum256(body))} {
		if _, err := b.store.Purge(what, "a court said so", "test"); err != nil {
			t.Fatal(err)
		}
	}
	b.denied(http.MethodGet, base+"/o/"+info.ID.String())
	b.denied(http.MethodGet, base+"/o/"+info.ID.String()+"?torrent")
	b.denied(http.MethodGet, base+"/o/btih:"+hash+"/a/file")
	// What the URL gives shows when all of it is here; then it is not asked for
	// again.
	b.do(http.MethodGet, s.URL+"/x")
	for range 500 {
		if r := b.do(http.MethodGet, s.URL+"/x"); r.StatusCode == http.StatusUnavailableForLegalReasons {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	before := len(s.requests())
	b.denied(http.MethodGet, s.URL+"/x")
	if n := len(s.requests()); n != before {
		t.Errorf("the origin was asked %d times more", n-before)
	}
	if list := b.store.List(); len(list) > 0 {
		t.Errorf("kept: %+v", list)
	}
}

// A client in the middle of an answer gets no more of it.
func TestTakedownCutsAnswersShort(t *testing.T) {
	body := testBody(64 << 20)
	s := newSite(t, file(body, `"e"`, "max-age=60"))
	b := newBox(t, t.TempDir(), loopback(t), nil, nil)
	b.get(s.URL + "/x")
	b.settle()
	resp, err := b.client.Get(s.URL + "/x")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.Purge(s.URL+"/x", "a court said so", "test"); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil {
		t.Errorf("all of it came, another %d bytes", n)
	}
}

package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// body is a Source of n bytes.
type body int

func (body) Name() string { return "origin a.test" }
func (b body) Fill(_ context.Context, sink content.Sink) error {
	if _, err := sink.WriteAt(bytes.Repeat([]byte{byte(b)}, int(b)), 0); err != nil {
		return err
	}
	return sink.Accept(content.Range{End: int64(b)})
}

// realStore has an object for each name, each of another size.
func realStore(t *testing.T, names ...string) *cache.Store {
	t.Helper()
	store, err := cache.Open(cache.Config{
		Dir: t.TempDir(), MinFree: 1, Small: true, Quotas: []cache.Quota{{Name: "b", Match: []string{"b.test"}, MaxBytes: 1 << 20}},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	for i, name := range names {
		spec := cache.Spec{Object: content.Object{Size: int64(100_000 + i)}, Title: name, Public: true}
		fill, err := store.Create(spec, name, nil)
		if err != nil {
			t.Fatal(err)
		}
		fill.Start(body(100_000 + i))
		<-fill.Done()
		if err := fill.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// answer sends a request with the token and decodes what comes.
func answer[T any](t *testing.T, s *Server, method, path, body string) T {
	t.Helper()
	w := request(s, method, path, body, "Authorization", bearer(t, s), "Content-Type", "application/json")
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != 200 {
		t.Fatalf("%s %s: %d %s, %v", method, path, w.Code, w.Body, err)
	}
	return v
}

func TestEvictByPattern(t *testing.T) {
	store := realStore(t, "http://a.test/1", "http://a.test/2", "http://b.test/1")
	s := newServer(t, Config{}, Parts{Objects: store})
	if list := answer[[]client.Object](t, s, "GET", "/api/v1/objects?match=a.test", ""); len(list) != 2 {
		t.Errorf("a.test has %d objects", len(list))
	}
	for _, pattern := range []string{"*", "", strings.Repeat("x", 1100)} {
		query(t, s, "DELETE", "/api/v1/objects?match="+url.QueryEscape(pattern), "", 422)
	}
	query(t, s, "DELETE", "/api/v1/objects", "", 422)
	if e := answer[client.Evicted](t, s, "DELETE", "/api/v1/objects?match=*.test%2F1", ""); e.Objects != 2 || e.Bytes != 200_002 {
		t.Errorf("evicted %+v", e)
	}
	if list := store.List(); len(list) != 1 || list[0].Title != "http://a.test/2" {
		t.Errorf("left: %+v", list)
	}
}

func TestTakedowns(t *testing.T) {
	store := realStore(t, "http://a.test/1", "http://b.test/1")
	s := newServer(t, Config{}, Parts{Objects: store})
	for body, says := range map[string]string{
		`{"what":"http://a.test/1"}`:           "why",
		`{"what":"","why":"x"}`:                "what",
		`{"what":"btih:12","why":"x"}`:         "infohash",
		`{"what":"*","why":"x"}`:               "everything",
		`{"what":"sha256:zz","why":"x"}`:       "",
		`{"what":"nonsense words","why":"so"}`: "no URL",
	} {
		got := query(t, s, "POST", "/api/v1/takedowns", body, 422)
		if text, _ := json.Marshal(got); !strings.Contains(string(text), says) {
			t.Errorf("%s: %s", body, text)
		}
	}
	done := answer[client.Purged](t, s, "POST", "/api/v1/takedowns", `{"what":"HTTP://A.test:80/1#x","why":"a court said so"}`)
	if done.What != "http://a.test/1" || len(done.Removed) != 1 || done.Searching {
		t.Errorf("purged %+v", done)
	}
	list := answer[[]client.Takedown](t, s, "GET", "/api/v1/takedowns", "")
	if len(list) != 1 || list[0].By != "cli" || list[0].Why != "a court said so" || time.Since(list[0].At) > time.Minute {
		t.Errorf("takedowns %+v", list)
	}
	x := answer[client.Explanation](t, s, "GET", "/api/v1/explain?url=http%3A%2F%2Fa.test%2F1", "")
	if x.State != "denied" || !strings.Contains(strings.Join(x.Reasons, " "), "a court said so") {
		t.Errorf("explained %+v", x)
	}
	if st := answer[client.Status](t, s, "GET", "/api/v1/status", ""); st.Takedowns != 1 || len(st.Volumes) != 1 || st.Volumes[0].State != client.Well || len(st.Services) != 1 || st.Services[0].Bytes != 100_001 {
		t.Errorf("status %+v", st)
	}
	answer[client.Takedown](t, s, "DELETE", "/api/v1/takedowns?what=http%3A%2F%2Fa.test%2F1", "")
	query(t, s, "DELETE", "/api/v1/takedowns?what=http%3A%2F%2Fa.test%2F1", "", 404)
	var actions []string
	for _, line := range answer[[]client.AuditLine](t, s, "GET", "/api/v1/takedowns/audit", "") {
		actions = append(actions, line.Action+" by "+line.By)
	}
	if got := strings.Join(actions, ", "); got != "denied by cli, removed by cli, lifted by cli" {
		t.Errorf("audit: %s", got)
	}
}

// Who takes something down in the panel is the account, not the command line.
func TestTakedownFromThePanel(t *testing.T) {
	store := realStore(t)
	s := newServer(t, Config{}, Parts{Objects: store})
	cookie := setUp(t, s, "correct horse")
	w := request(s, "POST", "/api/v1/takedowns", `{"what":"a.test","why":"so"}`, "Cookie", cookie, "Content-Type", "application/json")
	if list := store.Denials(); w.Code != 200 || len(list) != 1 || list[0].By != "admin" {
		t.Errorf("%d %s: %+v", w.Code, w.Body, list)
	}
}

func TestScrubInTheBackground(t *testing.T) {
	var names []string
	for i := range 12 { // more than the 1 MiB that a slow scrub may read at once
		names = append(names, fmt.Sprintf("http://a.test/%d", i))
	}
	const size = 12*100_000 + 66
	store := realStore(t, names...)
	s := newServer(t, Config{}, Parts{Objects: store})
	if got := answer[client.Scrub](t, s, "GET", "/api/v1/scrub", ""); got.State != client.ScrubNone {
		t.Errorf("before: %+v", got)
	}
	query(t, s, "POST", "/api/v1/scrub", `{"rate":-1}`, 422)
	answer[client.Scrub](t, s, "POST", "/api/v1/scrub", `{}`)
	wait := func() client.Scrub {
		for range 1000 {
			if got := answer[client.Scrub](t, s, "GET", "/api/v1/scrub", ""); got.State != client.ScrubRunning {
				return got
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatal("the scrub does not end")
		return client.Scrub{}
	}
	if got := wait(); got.State != client.ScrubDone || got.Objects != 12 || got.TotalObjects != 12 || got.Bytes != size || got.TotalBytes != size || got.Ended.IsZero() {
		t.Errorf("after: %+v", got)
	}
	answer[client.Scrub](t, s, "POST", "/api/v1/scrub", `{"rate":1}`) // a byte a second
	query(t, s, "POST", "/api/v1/scrub", `{}`, 409)
	if got := answer[client.Scrub](t, s, "DELETE", "/api/v1/scrub", ""); got.State != client.ScrubStopped {
		t.Errorf("stopped: %+v", got)
	}
}

func TestExplainAnObject(t *testing.T) {
	store := realStore(t, "http://b.test/1")
	s := newServer(t, Config{}, Parts{Objects: store})
	for _, path := range []string{"/api/v1/explain?url=http%3A%2F%2Fb.test%2F1", "/api/v1/objects/1/explain"} {
		if strings.HasPrefix(path, "/api/v1/objects") {
			path = strings.Replace(path, "/1/", "/"+url.PathEscape("http://b.test/1")+"/", 1)
		}
		x := answer[client.Explanation](t, s, "GET", path, "")
		k := x.Kept
		if x.State != client.Complete || k == nil || len(k.Here) != 1 || k.Here[0].End != 100_000 || len(k.Parts) != 1 || k.Parts[0].Source != "origin a.test" {
			t.Fatalf("%s: %+v", path, x)
		}
		if k.Volume == "" || k.Checked != 100_000 || k.Service != "b" || k.Vouched == "" || !strings.Contains(k.Eviction, "b (100000 of 1048576 bytes)") {
			t.Errorf("%s: %+v", path, k)
		}
	}
	query(t, s, "GET", "/api/v1/objects/99/explain", "", 404)
}

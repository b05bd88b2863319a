package admin

import (
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// query sends a request with the token and decodes the answer.
func query(t *testing.T, s *Server, method, path, body string, want int) map[string]any {
	t.Helper()
	header := []string{"Authorization", bearer(t, s)}
	if body != "" {
		header = append(header, "Content-Type", "application/json")
	}
	w := request(s, method, path, body, header...)
	if w.Code != want {
		t.Errorf("%s %s %.80s answered %d, want %d: %.300s", method, path, body, w.Code, want, w.Body)
	}
	var answer map[string]any
	if strings.HasPrefix(w.Body.String(), "{") {
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Errorf("%s %s: %v", method, path, err)
		}
	}
	return answer
}

func TestObjects(t *testing.T) {
	s := newServer(t, Config{}, sample(time.Now()))
	whole := "ab05" + strings.Repeat("0", 60) + "-4700372992"
	dvd := "debian-12.8.0-amd64-DVD-1.iso"
	for _, c := range []struct {
		which string
		want  int
		num   float64
	}{
		{"5", 200, 5},
		{whole, 200, 5},
		{strings.ToUpper(whole[:12]), 200, 5},
		{dvd, 200, 5},
		{"ubuntu-24.04.3-live-server-amd64.iso", 200, 6},
		{"http://video.example.edu/lecture.mp4", 200, 3},
		{"HTTP://Video.example.edu:80/lecture.mp4#part", 200, 3},
		{"btih:" + strings.Repeat("0c", 20) + "/" + dvd, 200, 5},
		{"99", 404, 0},
		{"ab0", 404, 0},
		{"-1", 404, 0},
		{"../status", 404, 0},
		{"no such thing", 404, 0},
		{strings.Repeat("x", 17000), 422, 0},
	} {
		got := query(t, s, "GET", "/api/v1/objects/"+url.PathEscape(c.which), "", c.want)
		if c.num != 0 && got["num"] != c.num {
			t.Errorf("%s is object %v, want %v", c.which, got["num"], c.num)
		}
	}
	if got := query(t, s, "PUT", "/api/v1/objects/4/pin", "", 200); got["pinned"] != true {
		t.Errorf("pinned object: %v", got)
	}
	if got := query(t, s, "DELETE", "/api/v1/objects/4/pin", "", 200); got["pinned"] != false {
		t.Errorf("unpinned object: %v", got)
	}
	if got := query(t, s, "DELETE", "/api/v1/objects/4", "", 200); got["num"] != 4.0 {
		t.Errorf("evicted object: %v", got)
	}
	query(t, s, "DELETE", "/api/v1/objects/4", "", 404)
	query(t, s, "POST", "/api/v1/objects/5/cast", "", 200)
	query(t, s, "POST", "/api/v1/objects/3/cast", "", 409)
}

func TestAmbiguousObject(t *testing.T) {
	parts := sample(time.Now())
	store := parts.Objects.(*shelf)
	store.all[0].Title, store.all[1].Title = "a/same", "b/same"
	s := newServer(t, Config{}, parts)
	got := query(t, s, "DELETE", "/api/v1/objects/same", "", 409)
	if detail, _ := got["detail"].(string); !strings.Contains(detail, "6, 5") {
		t.Errorf("the refusal says %q, want the numbers", detail)
	}
	if len(store.all) != 5 {
		t.Error("something was evicted")
	}
}

func TestAdd(t *testing.T) {
	s := newServer(t, Config{}, sample(time.Now()))
	torrent := base64.StdEncoding.EncodeToString([]byte("d4:infoe"))
	for _, c := range []struct {
		name, body string
		want       int
		says       string
	}{
		{"url", `{"url":"https://example.org/large.iso"}`, 200, ""},
		{"magnet", `{"magnet":"magnet:?xt=urn:btih:` + strings.Repeat("ab", 20) + `"}`, 200, ""},
		{"torrent", `{"torrent":"` + torrent + `"}`, 200, ""},
		{"nothing", `{}`, 422, "exactly one"},
		{"two", `{"url":"http://a.test/","torrent":"` + torrent + `"}`, 422, "exactly one"},
		{"malformed url", `{"url":"http://a.test/%zz"}`, 422, "%zz"},
		{"ftp", `{"url":"ftp://a.test/"}`, 422, "scheme"},
		{"file", `{"url":"file:///etc/passwd"}`, 422, "scheme"},
		{"userinfo", `{"url":"http://me:secret@a.test/"}`, 422, "userinfo"},
		{"no host", `{"url":"http:///x"}`, 422, "host"},
		{"private", `{"url":"http://private.test/"}`, 502, "private address"},
		{"full", `{"url":"http://big.test/"}`, 507, "max_bytes"},
		{"bad magnet", `{"magnet":"magnet:?dn=x"}`, 422, "infohash"},
		{"bad torrent", `{"torrent":"` + base64.StdEncoding.EncodeToString([]byte("xx")) + `"}`, 422, "dictionary"},
		{"not base64", `{"torrent":"***"}`, 422, "base64"},
		{"unknown key", `{"uri":"http://a.test/"}`, 422, "uri"},
		{"no json", `url=http://a.test/`, 400, ""},
		{"too much", `{"url":"` + strings.Repeat("x", maxTorrent) + `"}`, 413, ""},
	} {
		got := query(t, s, "POST", "/api/v1/add", c.body, c.want)
		if text, _ := json.Marshal(got); !strings.Contains(string(text), c.says) {
			t.Errorf("%s: answered %s, want %q in it", c.name, text, c.says)
		}
	}
}

func TestPartsThatAreOff(t *testing.T) {
	s := newServer(t, Config{}, Parts{Objects: &shelf{}})
	for _, path := range []string{"objects", "swarms", "torrent-clients", "casts", "agents"} {
		w := request(s, "GET", "/api/v1/"+path, "", "Authorization", bearer(t, s))
		if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != "[]" {
			t.Errorf("%s answered %d %q, want []", path, w.Code, got)
		}
	}
	query(t, s, "POST", "/api/v1/add", `{"magnet":"magnet:?xt=urn:btih:00"}`, 503)
	query(t, s, "POST", "/api/v1/add", `{"url":"http://a.test/"}`, 503)
	query(t, s, "GET", "/api/v1/enrolment", "", 503)
	query(t, s, "DELETE", "/api/v1/agents/7", "", 503)
	if w := request(s, "GET", "/metrics", "", "Authorization", bearer(t, s)); w.Code != 200 {
		t.Errorf("metrics answered %d", w.Code)
	}
}

func TestStatus(t *testing.T) {
	s := newServer(t, Config{Proxy: "192.168.1.2:3142", Version: "1.2"}, sample(time.Now()))
	got := query(t, s, "GET", "/api/v1/status", "", 200)
	served := 1_770_000_000 + 37_602_983_936 + 9_100_000_000 + 2_200_000_000 + 310_781_612 + 51_000
	filled := 611_000_000 + 4_700_372_992 + 13_512_244 + 96_468_992 + 51_000
	for name, want := range map[string]any{
		"version": "1.2", "proxy": "192.168.1.2:3142", "served": float64(served), "filled": float64(filled),
		"saved": float64(served - filled), "objects": 5.0, "fills": 1.0, "swarms": 2.0, "casts": 1.0, "agents": 6.0,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	sources, _ := got["sources"].(map[string]any)
	if len(sources) != 2 || sources["swarm"] != 4_200_000_000.0 {
		t.Errorf("sources are %v, want origin and swarm", sources)
	}
}

func TestAgents(t *testing.T) {
	s := newServer(t, Config{Proxy: "192.168.1.2:3142"}, sample(time.Now()))
	if got := query(t, s, "GET", "/api/v1/enrolment", "", 200); got["line"] != "cistern-agent enrol --box http://192.168.1.2:3142 --key SHA256:4ZqOQ8mV2yq1" {
		t.Errorf("enrolment: %v", got)
	}
	if got := query(t, s, "DELETE", "/api/v1/agents/103", "", 200); got["name"] != "lab-pc-03" {
		t.Errorf("revoked: %v", got)
	}
	query(t, s, "DELETE", "/api/v1/agents/103", "", 404)
}

func TestExplain(t *testing.T) {
	now := time.Now()
	parts := sample(now)
	name := "http://deb.debian.org/debian/pool/main/l/linux/linux-image.deb"
	meta, err := json.Marshal(httpcache.Response{
		Status: 200, Header: http.Header{"Cache-Control": {"max-age=3600"}, "Date": {now.UTC().Format(http.TimeFormat)}},
		Requested: now, Received: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	parts.Objects.(*shelf).meta = map[string][]byte{name: meta}
	s := newServer(t, Config{}, parts)
	for _, c := range []struct{ address, state, says string }{
		{name, "complete", "answered from the store: fresh by max-age"},
		{"http://releases.ubuntu.com/24.04/ubuntu-24.04.3-live-server-amd64.iso", "filling", "join this fill"},
		{"http://video.example.edu/lecture.mp4", "partial", "resumes it"},
		{"http://intranet.example.edu/report.pdf", "complete", "not publicly cacheable"},
		{"http://elsewhere.test/", "absent", "goes to the origin"},
	} {
		got := query(t, s, "GET", "/api/v1/explain?url="+url.QueryEscape(c.address), "", 200)
		text, _ := json.Marshal(got["reasons"])
		if got["state"] != c.state || !strings.Contains(string(text), c.says) {
			t.Errorf("%s is %v because %s, want %s and %q", c.address, got["state"], text, c.state, c.says)
		}
	}
	query(t, s, "GET", "/api/v1/explain?url=ftp%3A%2F%2Fa.test%2F", "", 422)
	query(t, s, "GET", "/api/v1/explain", "", 422)
}

func TestSnippetsFollowTheBox(t *testing.T) {
	s := newServer(t, Config{Proxy: "192.168.1.2:3142"}, sample(time.Now()))
	for q, want := range map[string]string{"": "http://192.168.1.2:3142/wpad.dat", "?address=box.lan:80": "http://box.lan:80/wpad.dat"} {
		w := request(s, "GET", "/api/v1/snippets"+q, "", "Authorization", bearer(t, s))
		var list []client.Snippet
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list) != 4 {
			t.Fatalf("%q: %v %s", q, err, w.Body)
		}
		for _, snippet := range list {
			if !strings.Contains(snippet.Text, want) {
				t.Errorf("%q: %s lacks %s: %s", q, snippet.Name, want, snippet.Text)
			}
		}
	}
	query(t, s, "GET", "/api/v1/snippets?address=a%22b", "", 422)
}

func TestDescription(t *testing.T) {
	s := newServer(t, Config{}, sample(time.Now()))
	var spec struct {
		OpenAPI string
		Paths   map[string]map[string]struct{ OperationID string }
	}
	w := request(s, "GET", "/api/v1/openapi.json", "")
	if err := json.Unmarshal(w.Body.Bytes(), &spec); err != nil || !strings.HasPrefix(spec.OpenAPI, "3.1") {
		t.Fatalf("openapi.json: %v, version %q", err, spec.OpenAPI)
	}
	page := request(s, "GET", "/api/v1/docs", "").Body.String()
	want := map[string]bool{
		"status": true, "list-objects": true, "get-object": true, "list-swarms": true, "list-torrent-clients": true, "list-casts": true, "list-agents": true,
		"get-enrolment": true, "get-snippets": true, "explain": true, "explain-object": true, "list-requests": true, "evict-matching": true, "purge": true, "list-takedowns": true, "lift": true,
		"audit": true, "get-scrub": true, "start-scrub": true, "stop-scrub": true, "add": true, "pin": true, "unpin": true, "evict": true,
		"cast": true, "revoke-agent": true, "get-system": true, "list-disks": true, "get-hardware": true, "qualify": true, "stop-qualify": true, "add-ssh-key": true, "remove-ssh-key": true,
		"order-system": true, "update-system": true, "get-system-log": true,
	}
	for path, item := range spec.Paths {
		for method, op := range item {
			if !want[op.OperationID] {
				t.Errorf("%s %s is an operation %q that this test does not know", method, path, op.OperationID)
			}
			delete(want, op.OperationID)
			if !strings.Contains(page, `id="`+op.OperationID+`"`) || !strings.Contains(page, "/api/v1"+path) {
				t.Errorf("the page does not list %s %s", method, path)
			}
			if w := request(s, strings.ToUpper(method), "/api/v1"+strings.NewReplacer("{object}", "5", "{node}", "1").Replace(path), ""); w.Code != 401 {
				t.Errorf("%s %s answers %d to nobody", method, path, w.Code)
			}
		}
	}
	for id := range want {
		t.Errorf("the description lacks %s", id)
	}
}

// TestPagesWorkOffline holds every page to what the policy allows: nothing from
// elsewhere, nothing inline.
func TestPagesWorkOffline(t *testing.T) {
	s := newServer(t, Config{Proxy: "192.168.1.2:3142"}, sample(time.Now()))
	pages := map[string]string{"setup": request(s, "GET", "/setup", "").Body.String()}
	pages["docs"] = request(s, "GET", "/api/v1/docs", "").Body.String()
	pages["panel"] = request(s, "GET", "/", "", "Authorization", bearer(t, s)).Body.String()
	setUp(t, s, "correct horse")
	pages["login"] = request(s, "GET", "/login", "").Body.String()
	for name, page := range pages {
		for _, banned := range []string{"src=\"http", "href=\"http", "src=\"//", "style=", " onclick", " onload", "<style", "<script>"} {
			if strings.Contains(page, banned) {
				t.Errorf("page %s has %q", name, banned)
			}
		}
		for _, needed := range []string{`<html lang="en">`, "<main", "<title>", "</html>"} {
			if !strings.Contains(page, needed) {
				t.Errorf("page %s lacks %q", name, needed)
			}
		}
	}
	err := fs.WalkDir(os.DirFS("panel"), "assets", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if w := request(s, "GET", "/"+path, ""); w.Code != 200 {
				t.Errorf("/%s answered %d", path, w.Code)
			}
			if data, rerr := os.ReadFile(filepath.Join("panel", path)); rerr != nil || strings.Contains(string(data), "url(") {
				t.Errorf("%s: %v, or it loads something", path, rerr)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

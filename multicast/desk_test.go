package multicast

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/multicast/announce"
)

// stillBox is a box whose parts do not run.
func stillBox(t testing.TB, store *cache.Store) *box {
	t.Helper()
	b := &box{store: store, hub: newHub(), found: map[string]Found{}}
	b.host = b.hub.host("10.0.0.1", 0, 1)
	var err error
	if b.key, err = announce.NewKey(); err != nil {
		t.Fatal(err)
	}
	if b.roster, err = OpenRoster(filepath.Join(t.TempDir(), "agents.json")); err != nil {
		t.Fatal(err)
	}
	if b.caster, err = newCaster(CasterConfig{Interfaces: []string{"lan"}}, b.key, store, b.roster, b.host, testLog()); err != nil {
		t.Fatal(err)
	}
	if b.desk, err = NewDesk(DeskConfig{Grace: 1, Hold: time.Second}, b.key, b.roster, store, b, b.caster, testLog()); err != nil {
		t.Fatal(err)
	}
	return b
}

// call sends a request to the desk and gives the answer.
func (b *box) call(method, path, bearer, body string) (int, string) {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.TLS = &tls.ConnectionState{}
	if bearer != "" {
		req.Header.Set("Authorization", bearer)
	}
	w := httptest.NewRecorder()
	b.desk.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

func TestDeskRefuses(t *testing.T) {
	b := stillBox(t, openStore(t))
	one, err := b.roster.Enrol("one", "")
	if err != nil {
		t.Fatal(err)
	}
	gone, err := b.roster.Enrol("gone", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.roster.Revoke(gone.Node); err != nil {
		t.Fatal(err)
	}
	good := "Bearer 2." + one.Secret.token()
	for _, c := range []struct {
		name                       string
		method, path, bearer, body string
		status                     int
		says                       string
	}{
		{"no token", "POST", "/agent/want", "", `{"url":"http://a/b"}`, 401, "token"},
		{"wrong token", "POST", "/agent/want", "Bearer 2." + gone.Secret.token(), `{"url":"http://a/b"}`, 401, "no such agent"},
		{"revoked", "POST", "/agent/want", "Bearer 3." + gone.Secret.token(), `{"url":"http://a/b"}`, 401, "no such agent"},
		{"token of nobody", "POST", "/agent/report", "Bearer 99.", `{}`, 401, "no such agent"},
		{"node not a number", "POST", "/agent/want", "Bearer x.y", `{}`, 401, "token"},
		{"GET", "GET", "/agent/want", good, ``, 405, "POST"},
		{"unknown path", "POST", "/agent/other", good, `{}`, 404, ""},
		{"nothing", "POST", "/agent/want", good, ``, 400, "empty"},
		{"not JSON", "POST", "/agent/want", good, `url=x`, 400, "decode"},
		{"too long", "POST", "/agent/want", good, `{"url":"` + strings.Repeat("x", maxRequest) + `"}`, 400, "longer than"},
		{"nothing named", "POST", "/agent/want", good, `{}`, 400, "expected one"},
		{"two named", "POST", "/agent/want", good, `{"url":"http://a/b","name":"x"}`, 400, "expected one"},
		{"other scheme", "POST", "/agent/want", good, `{"url":"file:///etc/passwd"}`, 400, "absolute http"},
		{"relative", "POST", "/agent/want", good, `{"url":"/etc/passwd"}`, 400, "absolute http"},
		{"bad identity", "POST", "/agent/want", good, `{"id":"xyz"}`, 400, "identity"},
		{"bad state", "POST", "/agent/report", good, `{"state":"happy"}`, 400, "happy"},
		{"no name", "POST", "/agent/enrol", "", `{}`, 400, "name"},
		{"long name", "POST", "/agent/enrol", "", `{"name":"` + strings.Repeat("x", 65) + `"}`, 400, "name"},
		{"control character", "POST", "/agent/enrol", "", `{"name":"a\u0007"}`, 400, "print"},
		{"name of another", "POST", "/agent/enrol", "", `{"name":"one"}`, 409, "taken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := b.call(c.method, c.path, c.bearer, c.body)
			if status != c.status || !strings.Contains(body, c.says) {
				t.Errorf("%d %q, want %d and %q", status, body, c.status, c.says)
			}
		})
	}
	if n := len(b.roster.List()); n != 1 {
		t.Errorf("%d agents on the roster, want the one that enrolled", n)
	}
}

func TestDeskSpeaksTLSOnly(t *testing.T) {
	b := stillBox(t, openStore(t))
	w := httptest.NewRecorder()
	b.desk.ServeHTTP(w, httptest.NewRequest("POST", "/agent/enrol", strings.NewReader(`{"name":"pc"}`)))
	if w.Code != 403 || len(b.roster.List()) != 0 {
		t.Errorf("in the clear the desk answered %d %q", w.Code, w.Body)
	}
}

func TestDeskAnswers(t *testing.T) {
	store := openStore(t)
	b := stillBox(t, store)
	whole := keep(t, store, "http://a/public", noise(1, 2<<20), true)
	small := keep(t, store, "http://a/small", noise(2, 2000), true)
	private := keep(t, store, "http://a/private", noise(3, 2<<20), false)
	for url, info := range map[string]cache.Info{"http://a/public": whole, "http://a/small": small, "http://a/private": private} {
		b.offer(url, info)
	}
	b.found["http://a/404"] = Found{Num: small.Num, Status: 404, Public: true}
	a, err := b.roster.Enrol("one", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		want  want
		state verdict
	}{
		{"public", want{URL: "http://a/public"}, verdictHTTP},
		{"small", want{URL: "http://a/small"}, verdictHTTP},
		{"private", want{URL: "http://a/private"}, verdictBypass},
		{"not 200", want{URL: "http://a/404"}, verdictBypass},
		{"unknown page", want{URL: "http://a/other"}, verdictBypass},
		{"by name", want{Name: "http://a/public"}, verdictHTTP},
		{"private by name", want{Name: "http://a/private"}, verdictBypass},
		{"unknown name", want{Name: "btih:0/x"}, verdictBypass},
		{"by identity", want{ID: whole.ID}, verdictHTTP},
		{"unknown identity", want{ID: content.ID{Root: content.Hash{1}, Size: 9}}, verdictBypass},
	} {
		t.Run(c.name, func(t *testing.T) {
			body, err := json.Marshal(c.want)
			if err != nil {
				t.Fatal(err)
			}
			status, text := b.call("POST", "/agent/want", "Bearer 2."+a.Secret.token(), string(body))
			var got answer
			if err := json.Unmarshal([]byte(text), &got); status != 200 || err != nil {
				t.Fatalf("%d %q: %v", status, text, err)
			}
			if got.State == verdictWait {
				t.Fatalf("told to wait: %s", got.Reason)
			}
			if got.State != c.state {
				t.Fatalf("%s (%s), want %s", got.State, got.Reason, c.state)
			}
			if got.State == verdictHTTP {
				if _, err := got.layer(); err != nil {
					t.Error(err)
				}
			}
			if got.Channel.Group.String() != "232.77.0.1:6003" || len(got.Channel.Sources) != 1 {
				t.Errorf("channel %+v", got.Channel)
			}
		})
	}
}

func TestEnrolmentOverTLS(t *testing.T) {
	b := stillBox(t, openStore(t))
	server := httptest.NewUnstartedServer(b.desk)
	server.Config.ErrorLog = quiet()
	cert, err := b.key.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = serverTLS(cert)
	server.StartTLS()
	defer server.Close()
	url := "http" + strings.TrimPrefix(server.URL, "https")
	ctx := context.Background()
	state := filepath.Join(t.TempDir(), "sub", "state.json")

	other, err := announce.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	_, err = Enrol(ctx, url, other.Fingerprint(), "pc", state)
	if !errors.Is(err, announce.ErrWrongKey) || !strings.Contains(err.Error(), b.key.Fingerprint().String()) {
		t.Errorf("enrolment with the wrong key gave %v, want ErrWrongKey and the key", err)
	}
	if _, err := os.Stat(state); err == nil {
		t.Error("a refused enrolment left a file")
	}

	first, err := Enrol(ctx, url, b.key.Fingerprint(), "pc", state)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state file: %v %v, want it for its owner alone", info.Mode(), err)
	}
	again, err := Enrol(ctx, url, b.key.Fingerprint(), "pc", state)
	if err != nil || again.Node() != first.Node() {
		t.Errorf("a renewed enrolment gave node %v, %v, want %d", again, err, first.Node())
	}
	if _, err := Enrol(ctx, url, b.key.Fingerprint(), "pc", filepath.Join(t.TempDir(), "x.json")); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("the same name from another agent gave %v", err)
	}
	opened, err := OpenLine(state)
	if err != nil || opened.Node() != first.Node() || opened.Box() != url || opened.BoxName() != "cistern" || opened.Name() != "pc" {
		t.Errorf("read back: %+v, %v", opened, err)
	}
	if _, err := opened.ask(ctx, want{URL: "http://a/b"}); err != nil {
		t.Errorf("the enrolled agent was not let in: %v", err)
	}

	kept := b.roster.List()[0]
	if kept.Heard.IsZero() || !kept.Address.IsLoopback() {
		t.Errorf("the agent asked, and was heard at %v from %v", kept.Heard, kept.Address)
	}
	kept.Heard, kept.Address = time.Time{}, netip.Addr{} // of this run alone
	reopened, err := OpenRoster(b.roster.path)
	if err != nil || len(reopened.List()) != 1 || reopened.List()[0] != kept {
		t.Errorf("the roster was read back as %+v, %v", reopened, err)
	}
	if err := b.roster.Revoke(first.Node()); err != nil {
		t.Fatal(err)
	}
	if _, err := opened.ask(ctx, want{URL: "http://a/b"}); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("a revoked agent was answered %v", err)
	}
	renewed, err := Enrol(ctx, url, b.key.Fingerprint(), "pc", state)
	if err != nil || renewed.Node() == first.Node() {
		t.Errorf("after it was revoked it enrolled as %v, %v, want a new node", renewed, err)
	}
}

func TestRosterIsBounded(t *testing.T) {
	r, err := OpenRoster(filepath.Join(t.TempDir(), "agents.json"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range maxAgents {
		r.agents[boxNode+2+nodeOf(n)] = Agent{Name: string(rune('a' + n))}
	}
	if _, err := r.Enrol("one more", ""); !errors.Is(err, ErrRosterFull) {
		t.Errorf("agent %d was enrolled: %v", maxAgents+1, err)
	}
}

func TestDamagedFilesAreNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"", "{", `{"version":9}`, `{"version":1,"agents":[{"node":1}]}`, `{"version":1,"agents":[{"node":5,"key":"xx"}]}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenRoster(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("roster %q: %v, want an error that names the file", text, err)
		}
		if _, err := OpenLine(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("enrolment %q: %v, want an error that names the file", text, err)
		}
	}
}

func TestBypassWithoutAsking(t *testing.T) {
	m := NewMember(nil, nil, nil, testLog())
	for _, req := range []*http.Request{
		httptest.NewRequest("POST", "http://a/b", nil),
		httptest.NewRequest("HEAD", "http://a/b", nil),
		httptest.NewRequest("GET", "/b", nil),
		withHeader(httptest.NewRequest("GET", "http://a/b", nil), "Authorization", "Basic eA=="),
		withHeader(httptest.NewRequest("GET", "http://a/b", nil), "Cookie", "a=b"),
	} {
		if _, err := m.Open(context.Background(), req); !errors.Is(err, ErrBypass) {
			t.Errorf("%s %s: %v, want ErrBypass", req.Method, req.URL, err)
		}
	}
}

func withHeader(r *http.Request, name, value string) *http.Request {
	r.Header.Set(name, value)
	return r
}

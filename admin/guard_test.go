package admin

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// request sends one request to s and gives the answer.
func request(s *Server, method, target string, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:8080"
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

const formType = "application/x-www-form-urlencoded"

// send posts a form.
func send(s *Server, path string, fields url.Values, header ...string) *httptest.ResponseRecorder {
	return request(s, "POST", path, fields.Encode(), append([]string{"Content-Type", formType}, header...)...)
}

func secretOf(t *testing.T, s *Server, name string) string {
	t.Helper()
	path := filepath.Join(s.cfg.DataDir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v, want 0600", name, info.Mode())
	}
	return strings.TrimSpace(string(data))
}

func bearer(t *testing.T, s *Server) string { return "Bearer " + secretOf(t, s, client.TokenFile) }

// setUp sets the password and gives the cookie of the session.
func setUp(t *testing.T, s *Server, password string) string {
	t.Helper()
	w := send(s, "/setup", url.Values{"code": {secretOf(t, s, codeFile)}, "password": {password}, "again": {password}})
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" {
		t.Fatalf("setup answered %d to %q: %s", w.Code, w.Header().Get("Location"), w.Body)
	}
	return cookieOf(t, w)
}

func cookieOf(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	cookies := w.Result().Cookies()
	if len(cookies) != 1 {
		t.Fatalf("%d cookies were set", len(cookies))
	}
	c := cookies[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" {
		t.Errorf("cookie is not strict: %v", c)
	}
	return c.Name + "=" + c.Value
}

func TestWhoIsLetIn(t *testing.T) {
	s := newServer(t, Config{Names: []string{"Box.lan"}}, sample(time.Now()))
	cookie := setUp(t, s, "correct horse battery")
	token := bearer(t, s)
	for _, c := range []struct {
		name, method, path string
		header             []string
		want               int
	}{
		{"nobody reads the status", "GET", "/api/v1/status", nil, 401},
		{"nobody reads the events", "GET", "/events", nil, 401},
		{"nobody reads the metrics", "GET", "/metrics", nil, 401},
		{"nobody evicts", "DELETE", "/api/v1/objects/5", nil, 401},
		{"nobody asks for what there is not", "GET", "/api/v1/nonsense", nil, 401},
		{"nobody sees the panel", "GET", "/", nil, 303},
		{"everybody sees the API's description", "GET", "/api/v1/openapi.json", nil, 200},
		{"everybody sees the style sheet", "GET", "/assets/panel.css", nil, 200},
		{"nobody sees the templates", "GET", "/assets/../panel.html", nil, 307},
		{"nobody lists the assets' parent", "GET", "/assets/%2e%2e/panel.html", nil, 404},
		{"wrong token", "GET", "/api/v1/status", []string{"Authorization", "Bearer nonsense"}, 401},
		{"empty token", "GET", "/api/v1/status", []string{"Authorization", "Bearer "}, 401},
		{"wrong token beside a good session", "GET", "/api/v1/status", []string{"Authorization", "Bearer x", "Cookie", cookie}, 401},
		{"other scheme", "GET", "/api/v1/status", []string{"Authorization", strings.Replace(token, "Bearer", "Basic", 1)}, 401},
		{"token", "GET", "/api/v1/status", []string{"Authorization", token}, 200},
		{"token, scheme in lower case", "GET", "/api/v1/status", []string{"Authorization", strings.Replace(token, "Bearer", "bearer", 1)}, 200},
		{"token reads the metrics", "GET", "/metrics", []string{"Authorization", token}, 200},
		{"session", "GET", "/api/v1/status", []string{"Cookie", cookie}, 200},
		{"session sees the panel", "GET", "/", []string{"Cookie", cookie}, 200},
		{"planted session", "GET", "/api/v1/status", []string{"Cookie", "cistern_session=abc"}, 401},
		{"session from the panel itself", "PUT", "/api/v1/objects/5/pin", []string{"Cookie", cookie, "Sec-Fetch-Site", "same-origin"}, 200},
		{"session from the panel itself, plain http", "PUT", "/api/v1/objects/5/pin", []string{"Cookie", cookie, "Origin", "http://127.0.0.1:8080"}, 200},
		{"forged by another site", "DELETE", "/api/v1/objects/5", []string{"Cookie", cookie, "Sec-Fetch-Site", "cross-site"}, 403},
		{"forged by another port of this host", "DELETE", "/api/v1/objects/5", []string{"Cookie", cookie, "Sec-Fetch-Site", "same-site"}, 403},
		{"forged, old browser", "DELETE", "/api/v1/objects/5", []string{"Cookie", cookie, "Origin", "http://evil.test"}, 403},
		{"forged, sandboxed page", "DELETE", "/api/v1/objects/5", []string{"Cookie", cookie, "Origin", "null"}, 403},
		{"forged logout", "POST", "/logout", []string{"Cookie", cookie, "Origin", "http://evil.test"}, 403},
		{"rebound name", "GET", "/api/v1/status", []string{"Host", "evil.test", "Authorization", token}, 421},
		{"rebound name with port", "GET", "/login", []string{"Host", "evil.test:8080"}, 421},
		{"rebound name that looks like an address", "GET", "/login", []string{"Host", "127.0.0.1.evil.test"}, 421},
		{"no name", "GET", "/login", []string{"Host", ""}, 421},
		{"localhost", "GET", "/api/v1/status", []string{"Host", "localhost:8080", "Authorization", token}, 200},
		{"IPv6 address", "GET", "/api/v1/status", []string{"Host", "[::1]:8080", "Authorization", token}, 200},
		{"IPv6 address without port", "GET", "/api/v1/status", []string{"Host", "[fd00::1]", "Authorization", token}, 200},
		{"configured name in other case", "GET", "/api/v1/status", []string{"Host", "box.LAN.", "Authorization", token}, 200},
		{"unknown operation", "GET", "/api/v1/nonsense", []string{"Authorization", token}, 404},
		{"wrong method", "PATCH", "/api/v1/objects/5", []string{"Authorization", token}, 404},
	} {
		w := request(s, c.method, c.path, "", c.header...)
		if w.Code != c.want {
			t.Errorf("%s: %s %s answered %d, want %d: %.200s", c.name, c.method, c.path, w.Code, c.want, w.Body)
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
			"Referrer-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s is %q", c.name, name, got)
			}
		}
	}
	if o, ok := s.parts.Objects.Get(5); !ok || !o.Pinned {
		t.Errorf("object 5 is %v %+v after what was refused", ok, o)
	}
}

func TestMetricsMayBeOpen(t *testing.T) {
	s := newServer(t, Config{MetricsOpen: true}, sample(time.Now()))
	if w := request(s, "GET", "/metrics", ""); w.Code != http.StatusOK {
		t.Errorf("open metrics answered %d", w.Code)
	}
	if w := request(s, "GET", "/metrics", "", "Host", "evil.test"); w.Code != http.StatusMisdirectedRequest {
		t.Errorf("open metrics under another name answered %d", w.Code)
	}
}

func TestSetup(t *testing.T) {
	s := newServer(t, Config{}, sample(time.Now()))
	for _, path := range []string{"/", "/login"} {
		if w := request(s, "GET", path, ""); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/setup" {
			t.Errorf("%s before there is a password answered %d to %q", path, w.Code, w.Header().Get("Location"))
		}
	}
	if w := request(s, "GET", "/setup", ""); w.Code != http.StatusOK || strings.Contains(w.Body.String(), s.account.setupCode()) {
		t.Errorf("setup page answered %d, or tells the code", w.Code)
	}
	code := secretOf(t, s, codeFile)
	const good = "correct horse"
	for _, c := range []struct {
		name, code, password, again, says string
		want                              int
	}{
		{"no code", "", good, good, "setup code", 401},
		{"wrong code", "AAAA-AAAA", good, good, "not the setup code", 401},
		{"short password", code, "short", "short", "at least 10", 422},
		{"passwords that differ", code, good, good + "x", "differ", 422},
	} {
		w := send(s, "/setup", url.Values{"code": {c.code}, "password": {c.password}, "again": {c.again}})
		if w.Code != c.want || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: answered %d, want %d and %q: %.300s", c.name, w.Code, c.want, c.says, w.Body)
		}
	}
	if s.account.ready() {
		t.Fatal("a password was set by what was refused")
	}
	typed := strings.ToLower(strings.ReplaceAll(code, "-", " "))
	if w := send(s, "/setup", url.Values{"code": {typed}, "password": {good}, "again": {good}}); w.Code != http.StatusSeeOther {
		t.Fatalf("the code as people type it answered %d: %s", w.Code, w.Body)
	}
	if _, err := os.Stat(filepath.Join(s.cfg.DataDir, codeFile)); !os.IsNotExist(err) {
		t.Errorf("the setup code is still there: %v", err)
	}
	if hash := secretOf(t, s, passwordFile); !strings.HasPrefix(hash, "$argon2id$") {
		t.Errorf("the password is kept as %q", hash)
	}
	if err := s.account.setPassword(code, "another password"); err != errPasswordSet {
		t.Errorf("a second setup: %v", err)
	}
	if w := send(s, "/setup", url.Values{"code": {code}, "password": {"another password"}, "again": {"another password"}}); w.Header().Get("Location") != "/login" {
		t.Errorf("a second setup answered %d to %q", w.Code, w.Header().Get("Location"))
	}

	again := newServer(t, s.cfg, sample(time.Now()))
	if ok, err := again.account.isPassword(good); !ok || err != nil {
		t.Errorf("after a restart the password is not known: %v %v", ok, err)
	}
	if bearer(t, again) != bearer(t, s) || !again.account.isToken(secretOf(t, s, client.TokenFile)) {
		t.Error("after a restart the token is another")
	}
}

func TestLoginAndLogout(t *testing.T) {
	s := newServer(t, Config{}, sample(time.Now()))
	first := setUp(t, s, "correct horse")
	w := send(s, "/login", url.Values{"password": {"correct horse"}})
	if w.Code != http.StatusSeeOther {
		t.Fatalf("login answered %d", w.Code)
	}
	cookie := cookieOf(t, w)
	if cookie == first {
		t.Error("two logins share a session")
	}
	if w := request(s, "GET", "/login", "", "Cookie", cookie); w.Header().Get("Location") != "/" {
		t.Errorf("login page of somebody logged in answered %d", w.Code)
	}
	if w := request(s, "POST", "/logout", "", "Cookie", cookie); w.Header().Get("Location") != "/login" {
		t.Errorf("logout answered %d", w.Code)
	}
	if w := request(s, "GET", "/api/v1/status", "", "Cookie", cookie); w.Code != http.StatusUnauthorized {
		t.Errorf("a session that was ended answered %d", w.Code)
	}
	if w := request(s, "GET", "/api/v1/status", "", "Cookie", first); w.Code != http.StatusOK {
		t.Errorf("another session ended with it: %d", w.Code)
	}
	big := send(s, "/login", url.Values{"password": {strings.Repeat("x", 2*maxForm)}})
	if big.Code != http.StatusBadRequest {
		t.Errorf("a form of %d bytes answered %d", 2*maxForm, big.Code)
	}
}

func TestGuessingIsThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Config{Session: time.Hour}, sample(time.Now()))
		setUp(t, s, "correct horse")
		guess := func(password string) *httptest.ResponseRecorder {
			return send(s, "/login", url.Values{"password": {password}})
		}
		for i := range guessBurst {
			if w := guess("wrong horse"); w.Code != http.StatusUnauthorized {
				t.Fatalf("guess %d answered %d", i, w.Code)
			}
		}
		for _, password := range []string{"wrong horse", "correct horse"} {
			if w := guess(password); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "12" {
				t.Errorf("%q after too many guesses answered %d, Retry-After %q", password, w.Code, w.Header().Get("Retry-After"))
			}
		}
		time.Sleep(guessEvery)
		w := guess("correct horse")
		if w.Code != http.StatusSeeOther {
			t.Fatalf("the password, a while later, answered %d", w.Code)
		}
		cookie := cookieOf(t, w)
		for range guessBurst {
			if w := guess("wrong horse"); w.Code != http.StatusUnauthorized {
				t.Errorf("guessing right did not clear the count: %d", w.Code)
			}
		}
		time.Sleep(time.Hour)
		if w := request(s, "GET", "/api/v1/status", "", "Cookie", cookie); w.Code != http.StatusUnauthorized {
			t.Errorf("a session of an hour answers %d after an hour", w.Code)
		}
	})
}

func TestThrottleIsBounded(t *testing.T) {
	now := time.Now()
	th := newThrottle()
	a := netip.MustParseAddr("2001:db8::1")
	for range guessBurst {
		th.allow(a, now)
	}
	if _, ok := th.allow(netip.MustParseAddr("2001:db8::2"), now); ok {
		t.Error("a neighbour in the same /64 may guess on")
	}
	if _, ok := th.allow(netip.MustParseAddr("::ffff:192.0.2.1"), now); !ok {
		t.Error("another client may not guess")
	}
	for i := range 3 * maxThrottled {
		now = now.Add(allEvery)
		th.allow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if len(th.each) > maxThrottled {
		t.Errorf("%d clients are remembered", len(th.each))
	}
	refused := 0
	for i := range 2 * allBurst {
		if _, ok := th.allow(netip.AddrFrom4([4]byte{172, 16, 0, byte(i)}), now); !ok {
			refused++
		}
	}
	if refused < allBurst-1 {
		t.Errorf("only %d of %d clients at once were slowed down", refused, 2*allBurst)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	m := &memory{sessions: map[string]session{}}
	now := time.Now()
	for i := range 2 * maxSessions {
		if err := m.Commit(string(rune('a'+i)), nil, now.Add(time.Hour+time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.sessions) != maxSessions {
		t.Errorf("%d sessions are kept", len(m.sessions))
	}
	if _, ok, _ := m.Find("a"); ok {
		t.Error("the oldest session was kept")
	}
	if _, ok, _ := m.Find(string(rune('a' + 2*maxSessions - 1))); !ok {
		t.Error("the newest session was not kept")
	}
}

func TestSecretsAreMadePrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, client.TokenFile)
	if err := os.WriteFile(path, []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, Config{DataDir: dir}, sample(time.Now()))
	if got := secretOf(t, s, client.TokenFile); got != "mine" || !s.account.isToken("mine") {
		t.Errorf("a token that was there became %q", got)
	}
}

package client

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestSnippetsGolden(t *testing.T) {
	list, err := Snippets("192.168.1.2")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		path := filepath.Join("testdata", s.Name+".txt")
		got := "# " + s.Hint + "\n" + s.Text + "\n"
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || got != string(want) {
			t.Errorf("%s: %v\n%s\nwant\n%s", s.Name, err, got, want)
		}
	}
	if len(list) != 4 {
		t.Errorf("%d snippets", len(list))
	}
}

func TestSnippetAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"192.168.1.2": "http://192.168.1.2:3142/wpad.dat", "192.168.1.2:80": "http://192.168.1.2:80/wpad.dat",
		"box.lan": "http://box.lan:3142/wpad.dat", "box": "http://box:3142/wpad.dat",
		"fd00::1": "http://[fd00::1]:3142/wpad.dat", "[fd00::1]:8080": "http://[fd00::1]:8080/wpad.dat", "::ffff:10.0.0.1": "http://10.0.0.1:3142/wpad.dat",
	} {
		list, err := Snippets(address)
		if err != nil {
			t.Errorf("%q: %v", address, err)
			continue
		}
		for _, s := range list {
			if !strings.Contains(s.Text, want) {
				t.Errorf("%q: %s lacks %s:\n%s", address, s.Name, want, s.Text)
			}
		}
	}
	for _, address := range []string{
		"", ":3142", "0.0.0.0", "[::]:80", "224.0.0.1", "fe80::1%eth0", "box:0", "box:99999", "box:http", "a b", "a'b", "a\"b", "a\nb", "a;b",
		"http://box", "box/", "-box", "box-", "a..b", "1.2.3", "1.2.3.4.5", "300.1.1.1", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a",
	} {
		if list, err := Snippets(address); err == nil {
			t.Errorf("%q was accepted: %s", address, list[0].Text)
		}
	}
}

// FuzzSnippets: whatever the address, what comes out has no character that
// could end the quotes that it stands in.
func FuzzSnippets(f *testing.F) {
	for _, s := range []string{"192.168.1.2", "box.lan:80", "[fd00::1]:1", "a\"b", "%41"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		list, err := Snippets(address)
		if err != nil {
			return
		}
		pac := strings.TrimSuffix(strings.TrimPrefix(list[0].Text, `dhcp-option=252,"`), `"`)
		if rest := strings.Trim(pac, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:/[]"); rest != "" {
			t.Errorf("%q became %q with %q", address, pac, rest)
		}
	})
}

func TestFindToken(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, TokenFile), []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(token string) func(string) string {
		return func(name string) string {
			if name == "CISTERN_TOKEN" {
				return token
			}
			return ""
		}
	}
	for _, c := range []struct{ name, explicit, env, dir, box, want string }{
		{"explicit", "said", "env", dir, "", "said"},
		{"environment", "", "env", dir, "", "env"},
		{"file", "", "", dir, "", "from-file"},
		{"file, by address", "", "", dir, "http://127.0.0.1:8080", "from-file"},
		{"file, by IPv6 address", "", "", dir, "http://[::1]:8080", "from-file"},
		{"file, by name", "", "", dir, "http://localhost:8080", "from-file"},
		{"another machine never gets the file's", "", "", dir, "http://192.0.2.1:8080", ""},
		{"nor does a name", "", "", dir, "http://box.lan:8080", ""},
		{"another machine gets the explicit one", "said", "", dir, "http://192.0.2.1:8080", "said"},
		{"no file", "", "", t.TempDir(), "", ""},
		{"no directory", "", "", "", "", ""},
	} {
		got, err := FindToken(c.explicit, env(c.env), c.dir, c.box)
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, box := range []string{"127.0.0.1:8080", "ftp://a", "http://", "http://a/b", "http://me:secret@a", "http://a\x00"} {
		if _, err := New(Config{Box: box}); err == nil {
			t.Errorf("%q was accepted", box)
		}
	}
	for _, box := range []string{"", "http://a:1", "https://a/", "http://[::1]:8080"} {
		if _, err := New(Config{Box: box}); err != nil {
			t.Errorf("%q: %v", box, err)
		}
	}
}

func TestCalls(t *testing.T) {
	var last string
	box := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last = r.Method + " " + r.URL.EscapedPath()
		if r.URL.RawQuery != "" {
			last += "?" + r.URL.RawQuery
		}
		if r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("%s came with %q", last, r.Header.Get("Authorization"))
		}
		switch r.URL.Path {
		case "/api/v1/swarms", "/api/v1/torrent-clients", "/api/v1/casts", "/api/v1/agents", "/api/v1/snippets", "/api/v1/objects", "/api/v1/requests":
			fmt.Fprint(w, "[]")
		default:
			fmt.Fprint(w, "{}")
		}
	}))
	defer box.Close()
	c, err := New(Config{Box: box.URL, Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for want, call := range map[string]func() error{
		"GET /api/v1/status":                        func() error { _, err := c.Status(ctx); return err },
		"GET /api/v1/objects":                       func() error { _, err := c.Objects(ctx); return err },
		"GET /api/v1/objects/http:%2F%2Fa%2Fb%3Fc":  func() error { _, err := c.Object(ctx, "http://a/b?c"); return err },
		"PUT /api/v1/objects/5/pin":                 func() error { _, err := c.Pin(ctx, "5"); return err },
		"DELETE /api/v1/objects/5/pin":              func() error { _, err := c.Unpin(ctx, "5"); return err },
		"DELETE /api/v1/objects/..%2Fstatus":        func() error { _, err := c.Evict(ctx, "../status"); return err },
		"POST /api/v1/objects/5/cast":               func() error { _, err := c.Cast(ctx, "5"); return err },
		"POST /api/v1/add":                          func() error { _, err := c.Add(ctx, Addition{URL: "http://a/"}); return err },
		"GET /api/v1/swarms":                        func() error { _, err := c.Swarms(ctx); return err },
		"GET /api/v1/torrent-clients":               func() error { _, err := c.TorrentClients(ctx); return err },
		"GET /api/v1/casts":                         func() error { _, err := c.Casts(ctx); return err },
		"GET /api/v1/agents":                        func() error { _, err := c.Agents(ctx); return err },
		"DELETE /api/v1/agents/7":                   func() error { return c.Revoke(ctx, "7") },
		"GET /api/v1/enrolment":                     func() error { _, err := c.Enrolment(ctx); return err },
		"GET /api/v1/explain?url=http%3A%2F%2Fa%2F": func() error { _, err := c.Explain(ctx, "http://a/"); return err },
		"GET /api/v1/requests?limit=3&since=2026-03-01T12%3A00%3A00Z&until=2026-03-01T12%3A00%3A00Z": func() error {
			at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			_, err := c.Past(ctx, PastQuery{Since: at, Until: at, Limit: 3})
			return err
		},
		"GET /api/v1/snippets?address=10.0.0.1%3A80": func() error { _, err := c.Snippets(ctx, "10.0.0.1:80"); return err },
	} {
		if err := call(); err != nil || last != want {
			t.Errorf("asked %q, want %q: %v", last, want, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	answer := func(status int, body string) (elsewhere string, err error) {
		other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { elsewhere = r.URL.Path }))
		defer other.Close()
		box := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", other.URL+"/stolen")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}))
		defer box.Close()
		c, err := New(Config{Box: box.URL, Token: "secret"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Status(context.Background())
		return elsewhere, err
	}
	for _, c := range []struct {
		status int
		body   string
		want   string
	}{
		{404, `{"detail":"no such object"}`, "no such object (404 Not Found)"},
		{422, `{"detail":"validation failed","errors":[{"message":"too long","location":"body.url"}]}`, "validation failed; too long at body.url (422 "},
		{502, "<html>", "the box refused (502 Bad Gateway)"},
		{303, "", "the box refused (303 See Other)"},
		{307, "", "the box refused (307 Temporary Redirect)"},
		{200, "<html>", "is this a box?"},
	} {
		elsewhere, err := answer(c.status, c.body)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d %s: %v, want %q", c.status, c.body, err, c.want)
		}
		if elsewhere != "" {
			t.Errorf("%d was followed to %s", c.status, elsewhere)
		}
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	c, err := New(Config{Box: gone.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(context.Background()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

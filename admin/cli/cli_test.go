package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache/content"
)

// fakeBox answers like a box's API and proxy.
type fakeBox struct {
	api, proxy *httptest.Server

	mu      sync.Mutex
	asked   []string
	added   client.Addition
	answers map[string]any // by method and path; a func() any is called
	bodies  map[string]string
}

const token = "secret"

func newBox(t *testing.T) *fakeBox {
	b := &fakeBox{answers: map[string]any{}, bodies: map[string]string{}}
	b.proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		body, ok := b.bodies[r.URL.RequestURI()]
		if !ok {
			http.Error(w, "no such object \x1b[31m", http.StatusNotFound)
			return
		}
		if r.Header.Get("Authorization") != "" {
			t.Error("the token went to the proxy")
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Error(err)
		}
	}))
	b.api = httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.api.Close)
	t.Cleanup(b.proxy.Close)
	b.answers["GET /api/v1/status"] = client.Status{Version: "1.2", Proxy: b.proxy.Listener.Addr().String(), Saved: 5e9, MaxBytes: 50e9}
	return b
}

func (b *fakeBox) serve(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	what := r.Method + " " + r.URL.EscapedPath()
	if r.URL.RawQuery != "" {
		what += "?" + r.URL.RawQuery
	}
	b.asked = append(b.asked, what)
	w.Header().Set("Content-Type", "application/json")
	if r.Header.Get("Authorization") != "Bearer "+token {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"detail":"send the admin token"}`)) // the test sees it missing
		return
	}
	if r.Method == http.MethodPost && r.URL.Path == "/api/v1/add" {
		b.added = client.Addition{}
		_ = json.NewDecoder(r.Body).Decode(&b.added) // the test sees it missing
	}
	answer, ok := b.answers[what]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"detail":"the store has no such object"}`)) // the test sees it missing
		return
	}
	if make, ok := answer.(func() any); ok {
		answer = make()
	}
	_ = json.NewEncoder(w).Encode(answer) // the test sees it missing
}

// do runs one command against the box.
func (b *fakeBox) do(args ...string) (code int, stdout, stderr string) {
	return run(append([]string{"--box", b.api.URL, "--token", token}, args...)...)
}

func run(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = Run(context.Background(), args, Env{Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }, Version: "1.2"})
	return code, out.String(), errs.String()
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		out  string
		err  string
	}{
		{[]string{"--help"}, Done, "snippets", ""},
		{[]string{"add", "--help"}, Done, "--wait", ""},
		{[]string{"--version"}, Done, "cistern 1.2", ""},
		{nil, Misused, "", "cistern --help"},
		{[]string{"statsu"}, Misused, "", `did you mean "status"`},
		{[]string{"pin"}, Misused, "", "<object>"},
		{[]string{"status", "--nonsense"}, Misused, "", "--nonsense"},
		{[]string{"snippets", "--for", "windows"}, Misused, "", "--for"},
		{[]string{"--box", "nonsense", "status"}, Failed, "", `box "nonsense": want an address`},
		{[]string{"snippets", "--address", "a\"b"}, Failed, "", "want an IP address or host name"},
	} {
		code, out, errs := run(c.args...)
		if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.err) {
			t.Errorf("%v: exit %d, want %d\nstdout: %s\nstderr: %s", c.args, code, c.code, out, errs)
		}
	}
}

func TestSnippetsNeedNoBox(t *testing.T) {
	code, out, errs := run("--box", "http://127.0.0.1:1", "snippets", "--address", "10.0.0.1", "--for", "isc")
	want := "# isc: dhcpd.conf, at the top, then restart isc-dhcp-server\noption wpad code 252 = text;\noption wpad \"http://10.0.0.1:3142/wpad.dat\";\n"
	if code != Done || out != want {
		t.Errorf("exit %d, %q %q", code, out, errs)
	}
	_, out, _ = run("snippets", "--address", "10.0.0.1")
	for _, server := range []string{"# dnsmasq: ", "# kea: ", "# isc: ", "# openwrt: "} {
		if !strings.Contains(out, server) {
			t.Errorf("all snippets lack %q", server)
		}
	}
	code, out, _ = run("--json", "snippets", "--address", "10.0.0.1")
	var list []client.Snippet
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 4 || code != Done {
		t.Errorf("as JSON: exit %d, %v, %s", code, err, out)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	box := newBox(t)
	gone := httptest.NewServer(nil)
	gone.Close()
	locked := t.TempDir()
	if err := os.MkdirAll(filepath.Join(locked, client.TokenFile), 0o700); err != nil { // reading a directory fails for root, too
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--box", gone.URL, "status"}, []string{"no box answers at " + gone.URL, "cisternd", "--box"}},
		{[]string{"--box", box.api.URL, "--data", "/nowhere", "status"}, []string{"wants the admin token", "--data", "/nowhere", "CISTERN_TOKEN"}},
		{[]string{"--box", box.api.URL, "--data", locked, "status"}, []string{"find token"}},
		{[]string{"--box", box.api.URL, "--token", token, "pin", "nonsense"}, []string{"nonsense: the store has no such object"}},
	} {
		code, out, errs := run(c.args...)
		for _, want := range c.want {
			if code != Failed || out != "" || !strings.Contains(errs, want) {
				t.Errorf("%v: exit %d, stdout %q, stderr lacks %q:\n%s", c.args, code, out, want, errs)
			}
		}
	}
}

func TestStatus(t *testing.T) {
	box := newBox(t)
	box.answers["GET /api/v1/objects"] = []client.Object{
		{Num: 7, State: client.Filling, Size: 1000, Readable: 410, Title: "evil\x1b[2J\ttitle", From: map[string]int64{"origin a.test": 400, "swarm": 10}},
		{Num: 6, State: client.Complete, Size: 5e6, Readable: 5e6, Pinned: true, Title: "b.iso", Served: map[string]int64{"http": 3e9}},
	}
	box.answers["GET /api/v1/swarms"] = []client.Swarm{{Infohash: strings.Repeat("ab", 20), State: "downloading", Name: "s"}}
	box.answers["GET /api/v1/casts"] = []client.Cast{{Object: 6, State: "on air", Group: "232.77.0.2:6003", Receivers: []client.Receiver{{Loss: 0.021}, {}}}}
	code, out, errs := box.do("status")
	if code != Done {
		t.Fatal(errs)
	}
	for _, want := range []string{"saved 5.00 GB", "filling 41%", "complete, pinned", "origin a.test 400 B, swarm 10 B", "http 3.00 GB", "abababababab", "on air", "2.1 %", "evil?[2J?title"} {
		if !strings.Contains(out, want) {
			t.Errorf("status lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("a title moves the terminal")
	}
	_, out, _ = box.do("status", "--json")
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Status.Saved != 5e9 || len(r.Objects) != 2 || len(r.Casts) != 1 {
		t.Errorf("as JSON: %v %+v", err, r)
	}
	box.answers["GET /api/v1/objects"] = []client.Object{}
	if _, out, _ := box.do("status"); !strings.Contains(out, "Nothing here yet. Try: curl") {
		t.Errorf("an empty box says\n%s", out)
	}
}

func TestAdd(t *testing.T) {
	dir := t.TempDir()
	torrent, text := filepath.Join(dir, "a.torrent"), filepath.Join(dir, "a.txt")
	for path, data := range map[string]string{torrent: "d4:infoe", text: "hello"} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hash := strings.Repeat("AB", 20)
	box := newBox(t)
	box.answers["POST /api/v1/add"] = client.Added{Object: 7, Name: "x"}
	for _, c := range []struct {
		what string
		want client.Addition
		err  string
	}{
		{"http://a.test/x", client.Addition{URL: "http://a.test/x"}, ""},
		{"HTTPS://a.test/x", client.Addition{URL: "HTTPS://a.test/x"}, ""},
		{"magnet:?xt=urn:btih:" + hash, client.Addition{Magnet: "magnet:?xt=urn:btih:" + hash}, ""},
		{hash, client.Addition{Magnet: "magnet:?xt=urn:btih:" + strings.ToLower(hash)}, ""},
		{strings.Repeat("ab", 32), client.Addition{Magnet: "magnet:?xt=urn:btmh:1220" + strings.Repeat("ab", 32)}, ""},
		{torrent, client.Addition{Torrent: []byte("d4:infoe")}, ""},
		{text, client.Addition{}, "is neither a .torrent file nor a metalink"},
		{dir, client.Addition{}, "is a directory"},
		{"ftp://a.test/", client.Addition{}, "it is no URL (http:// or https://), magnet link or infohash"},
	} {
		box.added = client.Addition{}
		code, out, errs := box.do("add", c.what)
		same := box.added.URL == c.want.URL && box.added.Magnet == c.want.Magnet && bytes.Equal(box.added.Torrent, c.want.Torrent)
		if !same || (c.err == "") != (code == Done) || !strings.Contains(errs, c.err) {
			t.Errorf("add %s: exit %d, sent %+v, said %q %q", c.what, code, box.added, out, errs)
		}
	}
}

func TestAddWaits(t *testing.T) {
	box := newBox(t)
	states := func(states ...any) func() any {
		return func() any {
			now := states[0]
			if len(states) > 1 {
				states = states[1:]
			}
			return now
		}
	}
	infohash := strings.Repeat("ab", 20)
	box.answers["POST /api/v1/add"] = client.Added{Infohash: infohash, Name: "s"}
	box.answers["GET /api/v1/swarms"] = states([]client.Swarm{{Infohash: infohash}}, []client.Swarm{{Infohash: infohash, Size: 100, BytesHave: 100}})
	if code, out, errs := box.do("add", "--wait", infohash); code != Done || !strings.Contains(out, "done: swarm "+infohash) {
		t.Errorf("swarm: exit %d %q %q", code, out, errs)
	}
	box.answers["GET /api/v1/swarms"] = states([]client.Swarm{{Infohash: infohash, State: "failed"}})
	if code, _, errs := box.do("add", "--wait", infohash); code != Failed || !strings.Contains(errs, "failed") {
		t.Errorf("failed swarm: exit %d %q", code, errs)
	}
	box.answers["GET /api/v1/swarms"] = states([]client.Swarm{})
	if code, _, errs := box.do("add", "--wait", infohash); code != Failed || !strings.Contains(errs, "has left") {
		t.Errorf("swarm that was left: exit %d %q", code, errs)
	}

	box.answers["POST /api/v1/add"] = client.Added{Object: 7, Name: "x"}
	box.answers["GET /api/v1/objects/7"] = states(client.Object{Num: 7, State: client.Filling, Size: -1}, client.Object{Num: 7, State: client.Complete, Size: 9, Readable: 9})
	code, out, errs := box.do("add", "--wait", "--json", "http://a.test/x")
	var o client.Object
	if err := json.Unmarshal([]byte(out), &o); err != nil || code != Done || o.State != client.Complete {
		t.Errorf("object: exit %d %v %q %q", code, err, out, errs)
	}
	box.answers["GET /api/v1/objects/7"] = client.Object{Num: 7, State: client.Partial, Size: 9, Readable: 3}
	if code, _, errs := box.do("add", "--wait", "http://a.test/x"); code != Failed || !strings.Contains(errs, "ended early with 3 B of 9 B") {
		t.Errorf("fill that ended: exit %d %q", code, errs)
	}
	delete(box.answers, "GET /api/v1/objects/7") // merged into an equal object
	box.answers["GET /api/v1/objects/http:%2F%2Fa.test%2Fx"] = client.Object{Num: 3, State: client.Complete, Size: 9, Readable: 9}
	if code, out, errs := box.do("add", "--wait", "http://a.test/x"); code != Done {
		t.Errorf("merged object: exit %d %q %q", code, out, errs)
	}
}

func TestWaitingCanBeStopped(t *testing.T) {
	box := newBox(t)
	box.answers["POST /api/v1/add"] = client.Added{Object: 7}
	ctx, cancel := context.WithCancel(context.Background())
	box.answers["GET /api/v1/objects/7"] = func() any {
		time.AfterFunc(10*time.Millisecond, cancel)
		return client.Object{Num: 7, State: client.Filling}
	}
	var out, errs bytes.Buffer
	code := Run(ctx, []string{"--box", box.api.URL, "--token", token, "add", "-w", "http://a.test/"}, Env{Stdout: &out, Stderr: &errs, Getenv: os.Getenv})
	if code != Failed || !strings.Contains(errs.String(), "stopped") {
		t.Errorf("exit %d %q", code, errs.String())
	}
}

func TestObjectCommands(t *testing.T) {
	box := newBox(t)
	box.answers["PUT /api/v1/objects/5/pin"] = client.Object{Num: 5, Title: "a"}
	box.answers["PUT /api/v1/objects/6/pin"] = client.Object{Num: 6, Title: "b"}
	box.answers["DELETE /api/v1/objects/5/pin"] = client.Object{Num: 5, Title: "a"}
	box.answers["DELETE /api/v1/objects/5"] = client.Object{Num: 5, Title: "a"}
	box.answers["GET /api/v1/objects/5"] = client.Object{Num: 5, Title: "a"}
	box.answers["POST /api/v1/objects/5/cast"] = client.Object{Num: 5, Title: "a"}
	box.answers["GET /api/v1/explain?url=http%3A%2F%2Fa.test%2F"] = client.Explanation{Key: "http://a.test/", State: "absent", Reasons: []string{"nothing is stored"}}
	box.answers["GET /api/v1/agents"] = []client.Agent{{Node: "7", Name: "pc"}}
	box.answers["GET /api/v1/enrolment"] = client.Enrolment{Line: "cistern-agent enrol"}
	box.answers["DELETE /api/v1/agents/7"] = client.Agent{Node: "7"}
	box.answers["GET /api/v1/snippets?address="] = []client.Snippet{{Name: "kea", Hint: "there", Text: "lines"}}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"pin", "5", "6"}, "pinned object 5: a\npinned object 6: b\n"},
		{[]string{"unpin", "5"}, "unpinned object 5: a\n"},
		{[]string{"evict", "5"}, "evicted object 5: a\n"},
		{[]string{"cast", "5"}, "casting object 5: a\n"},
		{[]string{"explain", "http://a.test/"}, "http://a.test/: absent\n  - nothing is stored\n"},
		{[]string{"snippets"}, "# kea: there\nlines\n"},
		{[]string{"agents"}, "cistern-agent enrol\n"},
		{[]string{"agents", "list"}, "pc"},
		{[]string{"agents", "revoke", "7"}, "revoked 7\n"},
	} {
		code, out, errs := box.do(c.args...)
		if code != Done || !strings.Contains(out, c.want) {
			t.Errorf("%v: exit %d, said %q %q, want %q", c.args, code, out, errs, c.want)
		}
		code, out, errs = box.do(append(c.args, "--json")...)
		if code != Done || !json.Valid([]byte(out)) {
			t.Errorf("%v --json: exit %d, said %q %q", c.args, code, out, errs)
		}
	}
}

func TestGet(t *testing.T) {
	data := strings.Repeat("cistern ", 5000)
	leaves, err := content.HashLeaves(nil, strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	id := content.ID{Root: content.Root(leaves), Size: int64(len(data))}
	box := newBox(t)
	object := client.Object{Num: 5, ID: id.String(), State: client.Complete, Public: true, Title: "http://a.test/dir/../../evil name.iso", Size: id.Size}
	box.answers["GET /api/v1/objects/5"] = object
	private := object
	private.Public, private.Names = false, []string{"http://a.test/secret.pdf?x=1"}
	box.answers["GET /api/v1/objects/6"] = private
	box.answers["GET /api/v1/objects/7"] = client.Object{Num: 7, State: client.Filling, Title: "b/c d.iso", Names: []string{"btih:abab/b/c d.iso"}}
	box.answers["GET /api/v1/objects/8"] = client.Object{Num: 8, State: client.Filling, Title: "..", Names: []string{}}
	box.bodies["/o/"+id.String()] = data
	box.bodies["/get/http/a.test/secret.pdf?x=1"] = data
	box.bodies["/o/btih:abab/b/c%20d.iso"] = "part"
	box.bodies["/get/https/b.test/x.deb"] = "deb"
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		args       []string
		code       int
		file, says string
	}{
		{[]string{"5"}, Done, "evil name.iso", "proved to be " + id.String()},
		{[]string{"5"}, Failed, "evil name.iso", "is there already"},
		{[]string{"5", "--force"}, Done, "evil name.iso", "proved"},
		{[]string{"5", "-o", "mine"}, Done, "mine", "mine: 40.0 kB"},
		{[]string{"6"}, Done, "secret.pdf", "proved"},
		{[]string{"7"}, Done, "c d.iso", "4 B"},
		{[]string{"8"}, Failed, "", "no name by which the box serves it"},
		{[]string{"https://b.test/x.deb"}, Done, "x.deb", "3 B"},
		{[]string{"http://b.test/none"}, Failed, "", "404 Not Found: no such object ?[31m"},
		{[]string{"5", "--json", "-o", "json"}, Done, "json", `"proved": true`},
	} {
		code, out, errs := box.do(append([]string{"get"}, c.args...)...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("get %v: exit %d, said %q %q, want %q", c.args, code, out, errs, c.says)
		}
		if c.file != "" {
			if _, err := os.Stat(c.file); err != nil {
				t.Errorf("get %v: %v", c.args, err)
			}
		}
	}
	if _, out, _ := box.do("get", "5", "-o", "-"); out != data {
		t.Errorf("standard output got %d bytes", len(out))
	}
	box.bodies["/o/"+id.String()] = data[:len(data)-1] + "?"
	if code, _, errs := box.do("get", "5", "-o", "bad"); code != Failed || !strings.Contains(errs, "nothing was kept") {
		t.Errorf("changed bytes: exit %d %q", code, errs)
	}
	left, err := os.ReadDir(".")
	if err != nil || len(left) != 6 {
		t.Errorf("files here: %v %v", left, err)
	}
}

func TestSafeName(t *testing.T) {
	for title, want := range map[string]string{
		"a.iso": "a.iso", ".bashrc": "bashrc", "-rf": "rf", "..": "object", "": "object", "a/b\\c:d": "a_b_c_d", "a\x1b[2Jb": "a?[2Jb", "\u202egpj.exe": "?gpj.exe",
		strings.Repeat("x", 300): strings.Repeat("x", 200),
	} {
		if got := safeName(title); got != want {
			t.Errorf("%q becomes %q, want %q", title, got, want)
		}
	}
}

// TestPanicsAreSeen: a fault in a command is not taken for its success.
func TestPanicsAreSeen(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a panic was swallowed")
		}
	}()
	Run(context.Background(), []string{"status"}, Env{Stdout: io.Discard, Stderr: io.Discard}) // no Getenv to call
}

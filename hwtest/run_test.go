package hwtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// TestSecondAnswerDoesNotTouchTheOrigin is `make run DEMO=1` and two curls.
func TestSecondAnswerDoesNotTouchTheOrigin(t *testing.T) {
	t.TempDir() // the first call says when all go: after the lab has stopped what runs in them
	l := lab.Test(t)
	host := l.Host("machine")
	host.Join(l.Switch("none", lab.SwitchConfig{Prefixes: []string{"10.0.0.0/24"}}), lab.LinkConfig{})
	if err := l.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	demo := filepath.Join(t.TempDir(), "demo")
	run(t, ".", []string{"CGO_ENABLED=0"}, "go", "build", "-o", demo, "./demo")
	p := host.Command(demo, "run", "--data", t.TempDir(), "--bin", bin)
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy := net.JoinHostPort("127.0.0.1", actors.ProxyPort)
	waitFor(t, "the proxy", func() bool {
		c, err := host.Dial("tcp", proxy)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	const url = "http://127.0.0.1:8090/demo.iso"
	want, err := actors.Curl(t.Context(), host, "", url)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := actors.Curl(t.Context(), host, "http://"+proxy, url)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("SHA-256 is %s, want %s", got, want)
		}
	}
	if out, err := host.Run(t.Context(), "curl", "-sS", "-x", "http://"+proxy, "http://127.0.0.1:8091/"); err != nil || !bytes.Contains(out, []byte("allow_destinations")) {
		t.Errorf("another port of the machine answered %q, %v; want a refusal that names the key", out, err)
	}
	if err := p.Stop(); err != nil {
		t.Logf("demo ended: %v", err)
	}
	output, err := os.ReadFile(p.OutputFile)
	if err != nil {
		t.Fatal(err)
	}
	_, said, _ := strings.Cut(string(output), "The origin answered ")
	var requests float64
	if _, err := fmt.Sscan(said, &requests); err != nil {
		t.Fatalf("the demo does not say how often its origin was asked: %v in\n%s", err, output)
	}
	figure(t, "run: origin requests for two curls through the box", requests-1, 1, "requests") // one was without the box
}

// TestBadInput gives the box what is malformed: each gets an error that names
// what was wrong, and nothing changes.
func TestBadInput(t *testing.T) {
	s := newScene(t)
	dir := t.TempDir()
	box, err := actors.StartBox(t.Context(), s.box, bin, t.TempDir(), s.config)
	if err != nil {
		t.Fatal(err)
	}
	torrent := filepath.Join(dir, "bad.torrent")
	write(t, torrent, []byte("d4:infod6:lengthi-5e4:name1:x12:piece lengthi16384e6:pieces0:ee"))
	wrongKey := filepath.Join(dir, "key.toml")
	write(t, wrongKey, []byte("version = 1\n[proxy]\nlistn = \"127.0.0.1:3142\"\n[store]\nmax_bytes = \"much\"\n"))

	var before, after any
	if err := box.API(t.Context(), "/api/v1/objects", &before); err != nil {
		t.Fatal(err)
	}
	tool := func(args ...string) func(context.Context) ([]byte, error) {
		return func(ctx context.Context) ([]byte, error) {
			out, err := box.Command(ctx, args...)
			if err == nil {
				return out, fmt.Errorf("cistern %v did not fail", args)
			}
			return []byte(err.Error()), nil
		}
	}
	for _, c := range []struct {
		name string
		say  func(context.Context) ([]byte, error)
		want string // what the message has to name
	}{
		{"magnet", tool("add", "magnet:?xt=urn:btih:zzzz"), "btih"},
		{"torrent", tool("add", torrent), "length"},
		{"url", tool("add", "http://[::1/x"), "::1"},
		{"not a thing", tool("add", "ftp://example.org/x"), "ftp"},
		{"object", tool("pin", "999999"), "999999"},
		{"config", func(ctx context.Context) ([]byte, error) {
			out, err := s.box.Run(ctx, filepath.Join(bin, "cisternd"), "check-config", wrongKey)
			if err == nil {
				return out, fmt.Errorf("check-config passed it")
			}
			return []byte(err.Error()), nil
		}, "listn"},
		{"get path", status(s, box, "/get/gopher/example.org/x", http.StatusBadRequest), "gopher"},
		{"object path", status(s, box, "/o/xyz", http.StatusBadRequest), "xyz"},
		{"closed destination", status(s, box, "/get/http/127.0.0.1/x", http.StatusForbidden), "loopback"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := c.say(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(out), c.want) || strings.Contains(string(out), "panic") {
				t.Errorf("the answer does not name %q: %s", c.want, out)
			}
		})
	}
	if err := box.API(t.Context(), "/api/v1/objects", &after); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("objects before: %v, after: %v", before, after)
	}
}

// status asks the box for a path and wants a status.
func status(s *scene, box *actors.Box, path string, want int) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, box.URL()+path, nil)
		if err != nil {
			return nil, err
		}
		resp, err := s.clients[0].HTTPClient().Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		var body bytes.Buffer
		_, err = body.ReadFrom(resp.Body)
		if err == nil && resp.StatusCode != want {
			err = fmt.Errorf("%s: status %d, want %d: %s", path, resp.StatusCode, want, body.Bytes())
		}
		if err == nil && resp.Header.Get("Cache-Status") == "" {
			err = fmt.Errorf("%s: no Cache-Status", path)
		}
		return body.Bytes(), err
	}
}

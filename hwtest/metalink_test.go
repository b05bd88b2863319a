package hwtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// liar is an origin of one file under any path, that at some time begins to give
// wrong bytes under the right validator.
type liar struct {
	honest, wrong []byte

	mu     sync.Mutex // guards lying
	lying  bool
	lies   atomic.Int64 // bytes of bodies that were sent since
	server http.Server
	done   sync.WaitGroup
}

func newLiar(t *testing.T, s *scene, body []byte) *liar {
	t.Helper()
	o := &liar{honest: body, wrong: bytes.Clone(body)}
	for i := 0; i < len(o.wrong); i += 3 << 20 { // every third piece
		o.wrong[i] ^= 0xff
	}
	o.server.Handler, o.server.ReadHeaderTimeout = o, 30*time.Second
	l, err := s.origin.Listen("tcp", s.origin.AddrPort(80))
	if err != nil {
		t.Fatal(err)
	}
	o.done.Go(func() { _ = o.server.Serve(l) })
	t.Cleanup(func() {
		_ = o.server.Close()
		o.done.Wait()
	})
	return o
}

func (o *liar) lie() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lying = true
}

func (o *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	lying := o.lying
	o.mu.Unlock()
	body := o.honest
	if lying {
		body = o.wrong
	}
	w.Header().Set("ETag", `"same"`)
	w.Header().Set("Cache-Control", "max-age=3600")
	http.ServeContent(&counted{w, &o.lies, lying}, r, "", time.Unix(1e9, 0), bytes.NewReader(body))
}

// counted adds up the body bytes that pass.
type counted struct {
	http.ResponseWriter
	n  *atomic.Int64
	on bool
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	if c.on {
		c.n.Add(int64(n))
	}
	return n, err
}

// TestMetalinkClients: aria2 and wget2 take a file by the box's metalink. Then
// the origin, which the metalink names as well, begins to lie: aria2 drops its
// pieces, and repairs a file that came from it alone.
func TestMetalinkClients(t *testing.T) {
	tools(t, "aria2c", "wget2")
	s := newScene(t)
	body := contentOf(4, 24<<20)
	o := newLiar(t, s, body)
	box, err := actors.StartBox(t.Context(), s.box, bin, t.TempDir(), s.config)
	if err != nil {
		t.Fatal(err)
	}
	direct := "http://" + s.origin.Addr().String() + "/disc.iso"
	file := box.URL() + "/get/http/" + s.origin.Addr().String() + "/disc.iso"
	if _, err := actors.Curl(t.Context(), s.clients[1], "", file); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the metalink", func() bool {
		_, err := actors.Curl(t.Context(), s.clients[1], "", file+".meta4")
		return err == nil
	})
	o.lie()
	right := sha256.Sum256(body)
	want := hex.EncodeToString(right[:])
	for _, c := range []struct {
		name string
		args []string
		lies bool // the client also asks the liar
	}{
		{"aria2, by Accept", []string{"aria2c", file}, false},
		{"aria2, by the metalink's address", []string{"aria2c", "--follow-metalink=mem", file + ".meta4"}, false},
		{"aria2, from box and liar at once", []string{"aria2c", "--follow-metalink=mem", "--min-split-size=1M", "--split=8", file + ".meta4"}, true},
		{"aria2, in many parts", []string{"aria2c", "--min-split-size=1M", "--split=8", file}, false},
		{"aria2, behind the proxy", []string{"aria2c", "--http-proxy=" + box.URL(), direct}, false},
		{"wget2, by redirect", []string{"wget2", file}, false},
		{"wget2, by the metalink's address", []string{"wget2", "--metalink", "--max-threads=1", file + ".meta4"}, false},
	} {
		before := o.lies.Load()
		got := fetched(t, s.clients[0], c.args)
		if got != want {
			t.Errorf("%s: wrong bytes, or none", c.name)
		}
		lies := o.lies.Load() - before
		if c.lies != (lies > 0) {
			t.Errorf("%s: the liar sent %d bytes", c.name, lies)
		}
		t.Logf("%s: %d bytes of the liar's were sent", c.name, lies)
	}
	t.Run("repair", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "disc.iso"), o.wrong, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := fetchedInto(t, s.clients[0], dir, []string{"aria2c", "--check-integrity=true", "--allow-overwrite=true", file}); got != want {
			t.Error("the file was not repaired")
		}
	})
}

// fetched runs a client in a directory of its own and gives the SHA-256 of the
// file that it left there.
func fetched(t *testing.T, h *lab.Host, args []string) string {
	t.Helper()
	return fetchedInto(t, h, t.TempDir(), args)
}

func fetchedInto(t *testing.T, h *lab.Host, dir string, args []string) string {
	t.Helper()
	p := h.Command(args[0], args[1:]...)
	p.Dir = dir
	p.Env = append(p.Env, "HOME="+dir)
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := p.Wait()
	said, _ := os.ReadFile(p.OutputFile)
	if err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, said)
	}
	digest, err := actors.Digest(filepath.Join(dir, "disc.iso"))
	if err != nil {
		names, _ := os.ReadDir(dir)
		t.Errorf("%s: %v; it left %s files\n%s", strings.Join(args, " "), err, strconv.Itoa(len(names)), said)
	}
	return digest
}

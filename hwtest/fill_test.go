package hwtest

import (
	"context"
	"crypto/sha256"
	"path/filepath"
	"testing"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// TestAptInstallsThroughTheBox: apt-get update and install through the box from
// a signed repository; then the origin is switched off and a second machine
// installs the same package from the box alone.
func TestAptInstallsThroughTheBox(t *testing.T) {
	s := newScene(t)
	content := sha256.Sum256([]byte("story"))
	var story []byte
	for range 50_000 {
		story = append(story, content[:]...)
	}
	repo := makeRepository(t, story)
	l, err := s.origin.Listen("tcp", s.origin.AddrPort(80))
	if err != nil {
		t.Fatal(err)
	}
	origin := actors.NewOrigin(repo.dir)
	origin.Start(l)
	defer origin.Close()

	box, err := actors.StartBox(t.Context(), s.box, bin, t.TempDir(), s.config)
	if err != nil {
		t.Fatal(err)
	}
	install := func(h *lab.Host) {
		root, config := aptMachine(t, repo, "http://"+s.origin.Addr().String(), box.URL())
		apt := func(args ...string) {
			out, err := h.Run(t.Context(), "env", append([]string{"APT_CONFIG=" + config, "apt-get", "-y"}, args...)...)
			if err != nil {
				t.Fatalf("apt-get %v: %v\n%s", args, err, out)
			}
		}
		apt("update")
		apt("install", debPackage)
		installed(t, root, story)
	}
	install(s.clients[0])
	asked := origin.Requests()
	if asked == 0 {
		t.Fatal("the first machine installed without asking the origin")
	}
	if err := origin.Close(); err != nil {
		t.Fatal(err)
	}
	install(s.clients[1])
	figure(t, "apt: origin requests of the second machine", float64(origin.Requests()-asked), 0, "requests")
}

// TestKillInTheMiddleOfAFill: the box is killed while a fill runs; started
// again, the fill goes on from its durable bytes and what comes out is whole.
func TestKillInTheMiddleOfAFill(t *testing.T) {
	s := newScene(t)
	const size = 160e6
	dir, data := t.TempDir(), t.TempDir()
	want, err := actors.WriteContent(filepath.Join(dir, "big.img"), size, 7)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.origin.Listen("tcp", s.origin.AddrPort(80))
	if err != nil {
		t.Fatal(err)
	}
	origin := actors.NewOrigin(dir)
	origin.Start(l)
	defer origin.Close()
	url := "http://" + s.origin.Addr().String() + "/big.img"

	box, err := actors.StartBox(t.Context(), s.box, bin, data, s.config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cut := make(chan error, 1)
	go func() {
		_, err := actors.Curl(ctx, s.clients[0], box.URL(), url)
		cut <- err
	}()
	// At most 64 MiB may be here that is not durable, so by now some must be.
	waitFor(t, "most of the fill", func() bool { return origin.Body() > size*3/4 })
	if err := box.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-cut; err == nil {
		t.Fatal("curl took half a file for a whole one")
	}
	before := origin.Body()

	if box, err = actors.StartBox(t.Context(), s.box, bin, data, s.config); err != nil {
		t.Fatal(err)
	}
	got, err := actors.Curl(t.Context(), s.clients[0], box.URL(), url)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("SHA-256 is %s, want %s", got, want)
	}
	again := origin.Body() - size // bytes that were fetched twice
	t.Logf("killed after %d of %d bytes", before, int64(size))
	figure(t, "kill: bytes fetched again after kill -9 in mid-fill", float64(again), 64<<20, "bytes")
	if origin.Body()-before >= size {
		t.Error("the fill began anew instead of going on from its durable bytes")
	}
}

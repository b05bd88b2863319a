package hwtest

import (
	"cmp"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// cacheTests is a cut of the public suite http-tests/cache-tests.
type cacheTests struct {
	name   string // in conformance.txt
	dir    string
	server string         // in dir
	tests  map[string]int // how many it has of each kind
	bounds map[string]int // how many of them are to pass
}

// TestConformance runs the suite through the box: its npm package or, where
// CISTERN_CACHE_TESTS names a checkout with `npm install` done, its sources.
// What fails stands with its reason in conformance.txt, and nothing else may:
// that is what is judged. The figures show how far it is from the bounds.
func TestConformance(t *testing.T) {
	tools(t, "node", "npm")
	suite := cacheTests{
		name: "sources", dir: os.Getenv("CISTERN_CACHE_TESTS"), server: "test-engine/server/server.mjs",
		tests: map[string]int{"required": 160, "optimal": 105}, bounds: map[string]int{"required": 150, "optimal": 80},
	}
	if suite.dir == "" {
		suite = cacheTests{
			name: "package", dir: installCacheTests(t), server: "server/server.mjs",
			tests: map[string]int{"required": 165, "optimal": 95}, bounds: map[string]int{"required": 150, "optimal": 70},
		}
	}
	s := newScene(t)
	server := s.origin.Command("node", "--no-warnings", filepath.Join(suite.dir, suite.server))
	server.Env = []string{"npm_config_protocol=http", "npm_config_port=80", "npm_config_pidfile=" + filepath.Join(t.TempDir(), "pid")}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the suite's server", func() bool {
		c, err := s.origin.Dial("tcp", s.origin.AddrPort(80))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	config := strings.Replace(s.config, "[proxy]\n", "[proxy]\nsurrogate = true\n", 1)
	box, err := actors.StartBox(t.Context(), s.box, bin, t.TempDir(), config)
	if err != nil {
		t.Fatal(err)
	}
	suite.judge(t, suite.run(t, s.clients[0], "http://"+s.origin.Addr().String(), box.URL()))
}

// installCacheTests installs the suite's npm package once for all runs.
func installCacheTests(t *testing.T) string {
	t.Helper()
	const pinned = "http-cache-tests@0.4.5"
	home := filepath.Join(os.TempDir(), "cistern-"+pinned)
	dir := filepath.Join(home, "node_modules", "http-cache-tests")
	if _, err := os.Stat(filepath.Join(home, "installed")); err == nil {
		return dir
	}
	out, err := exec.CommandContext(t.Context(), "npm", "install", "--prefix", home, "--no-save", "--ignore-scripts", "--no-audit", "--no-fund",
		pinned, "node-fetch@2.7.0").CombinedOutput()
	switch {
	case err == nil:
		write(t, filepath.Join(home, "installed"), nil)
	case os.Getenv("CI") == "true":
		t.Fatalf("npm install %s: %v\n%s", pinned, err, out)
	default:
		t.Skipf("npm install %s: %v\n%s", pinned, err, out)
	}
	return dir
}

// conformance is how a test of the suite ended.
type conformance struct {
	Kind   string `json:"kind"`
	Passed bool   `json:"passed"`
	Why    string `json:"why"`
}

func (c cacheTests) run(t *testing.T, client *lab.Host, server, proxy string) map[string]conformance {
	t.Helper()
	out, err := client.Run(t.Context(), "node", "--no-warnings", "conformance.mjs", c.dir, server, proxy)
	if err != nil {
		t.Fatalf("run the suite: %v\n%.2000s", err, out)
	}
	_, text, found := strings.Cut(string(out), "\n{\n") // the suite may have said something before
	if !found {
		text = strings.TrimPrefix(string(out), "{\n")
	}
	var results map[string]conformance
	if err := json.Unmarshal([]byte("{\n"+text), &results); err != nil {
		t.Fatalf("read the suite's results: %v\n%.2000s", err, out)
	}
	return results
}

// judge compares what failed with conformance.txt, and states what passed.
func (c cacheTests) judge(t *testing.T, results map[string]conformance) {
	t.Helper()
	known := c.known(t)
	all, passed := map[string]int{}, map[string]int{}
	for _, id := range slices.Sorted(maps.Keys(results)) {
		r := results[id]
		all[r.Kind]++
		if r.Passed {
			passed[r.Kind]++
		}
		switch {
		case r.Kind == "check": // it only asks how a cache behaves
		case !r.Passed && !known[id]:
			t.Errorf("%s %s failed: %s", r.Kind, id, r.Why)
		case r.Passed && known[id]:
			t.Errorf("%s %s passed: take it off conformance.txt", r.Kind, id)
		}
	}
	for _, kind := range []string{"required", "optimal"} {
		if all[kind] != c.tests[kind] {
			t.Errorf("the suite has %d %s tests, not %d", all[kind], kind, c.tests[kind])
		}
		verdict := "ok"
		if passed[kind] < c.bounds[kind] {
			verdict = "short"
		}
		t.Logf("figure: conformance, %s: %s tests passed of %d: %d tests (bound %d): %s", c.name, kind, all[kind], passed[kind], c.bounds[kind], verdict)
	}
}

// known are the tests of this cut that conformance.txt lists.
func (c cacheTests) known(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("conformance.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		cut, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if cut == c.name || cut == "both" {
			id, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			known[cmp.Or(id, line)] = true
		}
	}
	return known
}

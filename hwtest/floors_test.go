package hwtest

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/cistern-edge/cistern/"

// floors is the table of DESIGN.md: a package imports only from floors below
// its own. A new package needs a line here.
var floors = map[string]int{
	"cmd/cisternd": 6, "cmd/cistern": 6, "cmd/cistern-agent": 6,
	"hwtest": 6, "hwtest/demo": 6, "hwtest/bench": 6, "hwtest/actors": 5,
	"admin": 5, "admin/cli": 5,
	"admin/config": 4,
	"cache/proxy":  3, "multicast": 3, "peering": 3,
	"cache": 2, "cache/origin": 2,
	"cache/disk": 1, "cache/digest": 1, "multicast/norm": 1, "multicast/announce": 1, "peering/tracker": 1, "cache/content/contenttest": 1,
	"cache/content": 0, "cache/steer": 0, "cache/journal": 0, "cache/evict": 0, "cache/index": 0, "cache/httpcache": 0, "multicast/fec": 0,
	"cmd/cistern-init": 6, "cmd/mkimage": 6,
	"hwtest/qualify": 1, "image/appliance": 1, "image/build": 1, "image/appliance/shell": 0, "image": 0,
	"peering/feed": 0, "peering/metalink": 0, "hwtest/lab": 0, "hwtest/faultfs": 0, "admin/client": 0,
}

// doors says which packages may import a big outside module; tests are under
// the same rule.
var doors = map[string][]string{
	"github.com/dgraph-io/badger":         {"cache/index"},
	"github.com/hanwen/go-fuse":           {"hwtest/faultfs"},
	"github.com/anacrolix/torrent":        {"peering"},
	"github.com/anacrolix/":               {"peering", "peering/utp"},
	"github.com/klauspost/reedsolomon":    {"multicast/fec"},
	"github.com/google/nftables":          {"cache/steer", "hwtest/lab"},
	"github.com/mdlayher/netlink":         {"cache/steer"},
	"github.com/vishvananda/":             {"cache/steer", "hwtest/lab", "image/appliance"},
	"github.com/insomniacslk/dhcp":        {"image/appliance"},
	"github.com/brutella/dnssd":           {"image/appliance"},
	"github.com/ulikunitz/xz":             {"image/build"},
	"aead.dev/minisign":                   {"image", "image/build", "image/appliance", "cmd/mkimage"},
	"golang.org/x/crypto/ssh":             {"image/appliance/shell"},
	"github.com/ti-mo/conntrack":          {"cache/steer", "hwtest/lab"},
	"golang.org/x/net/ipv4":               {"multicast"},
	"golang.org/x/net/ipv6":               {"multicast"},
	"github.com/danielgtaylor/huma":       {"admin"},
	"github.com/prometheus/client_golang": {"admin"},
	"github.com/alecthomas/kong":          {"admin/cli", "cmd/cisternd", "cmd/cistern", "cmd/cistern-agent", "cmd/mkimage", "hwtest/demo"},
	"github.com/pelletier/go-toml":        {"admin/config", "image/appliance"},
}

// maxLines bounds a file, tests aside.
const maxLines = 400

// TestFloors reads the files itself: a cached go list once hid a break.
func TestFloors(t *testing.T) {
	files := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "testdata" || d.Name() == "var" || d.Name() == "bin"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		files++
		rel, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		checkFile(t, path, filepath.ToSlash(rel))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Fatalf("only %d Go files found: the walk looks in the wrong place", files)
	}
}

func checkFile(t *testing.T, path, rel string) {
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	isTest := strings.HasSuffix(rel, "_test.go")
	if n := bytes.Count(src, []byte{'\n'}); !isTest && n > maxLines {
		t.Errorf("%s has %d lines; %d is the most: two reasons to change share a room", rel, n, maxLines)
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ImportsOnly)
	if err != nil {
		t.Errorf("%s: %v", rel, err)
		return
	}
	pkg := filepath.ToSlash(filepath.Dir(rel))
	floor, known := floors[pkg]
	if !known && pkg != "peering/utp" { // a module of its own
		t.Errorf("%s: package %s has no floor; give it one in the table", rel, pkg)
	}
	for _, spec := range file.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		checkDoors(t, rel, pkg, imp)
		own, ok := strings.CutPrefix(imp, module)
		if !ok || own == pkg { // an external test imports its own package
			continue
		}
		below, ok := floors[own]
		if !ok {
			t.Errorf("%s imports %s, which has no floor", rel, own)
		} else if below > floor || below == floor && !isTest { // a test may stand on its neighbours
			t.Errorf("%s (floor %d) imports %s (floor %d): only floors below", rel, floor, own, below)
		}
	}
}

func checkDoors(t *testing.T, rel, pkg, imp string) {
	longest := ""
	for outside := range doors {
		if strings.HasPrefix(imp, outside) && len(outside) > len(longest) {
			longest = outside
		}
	}
	if longest == "" {
		return
	}
	for _, door := range doors[longest] {
		if pkg == door {
			return
		}
	}
	t.Errorf("%s imports %s; its door is %s", rel, imp, strings.Join(doors[longest], ", "))
}

package hwtest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// bin is where `make build` puts the binaries that the stories run.
const bin = "../bin"

func TestMain(m *testing.M) { lab.Main(m) }

// scene is the smallest LAN that a story needs: an origin in the world behind a
// NAT router, the box and two clients.
type scene struct {
	lab     *lab.Lab
	origin  *lab.Host
	router  *lab.Router
	uplink  *lab.Link // of the router
	box     *lab.Host
	clients []*lab.Host
	config  string // of the box
}

func newScene(t *testing.T) *scene {
	t.Helper()
	if _, err := os.Stat(filepath.Join(bin, "cisternd")); err != nil {
		t.Fatalf("the box is not built (make build): %v", err)
	}
	t.TempDir() // the first call says when all go: after the lab has stopped what runs in them
	s := &scene{lab: lab.Test(t), config: "version = 1\n[proxy]\nlisten = \"0.0.0.0:" + actors.ProxyPort + "\"\n[multicast]\ninterfaces = []\n"}
	wan := s.lab.Switch("wan", lab.SwitchConfig{Prefixes: []string{"203.0.113.0/24"}})
	lan := s.lab.Switch("lan", lab.SwitchConfig{Prefixes: []string{"10.0.0.0/24"}, Gateways: []string{"10.0.0.1"}})
	s.origin = s.lab.Host("origin")
	s.origin.Join(wan, lab.LinkConfig{})
	s.router = s.lab.Router("router")
	s.uplink = s.router.Join(wan, lab.LinkConfig{ToHost: lab.Path{Rate: 200 * lab.Mbit}})
	s.router.Masquerade(s.uplink)
	// As network cards do; the uplink has real frames.
	s.router.Join(lan, lab.LinkConfig{Addrs: []string{"10.0.0.1/24"}, Offloads: true})
	s.box = s.lab.Host("box")
	s.box.Join(lan, lab.LinkConfig{Offloads: true})
	for _, name := range []string{"first", "second"} {
		h := s.lab.Host(name)
		h.Join(lan, lab.LinkConfig{Offloads: true})
		s.clients = append(s.clients, h)
	}
	if err := s.lab.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// waitFor polls until what is hoped for has come, for so long that only what hangs
// is given up.
func waitFor(t *testing.T, what string, come func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !come(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

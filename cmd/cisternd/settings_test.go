package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/config"
	"github.com/cistern-edge/cistern/cache/index"
)

func TestFlagsStandAboveTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(file, []byte("[proxy]\nlisten = \":3142\"\n[admin]\nlisten = \":8080\"\n[store]\ndir = \"/file\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flags             runCommand
		proxy, admin, dir string
	}{
		{runCommand{}, "127.0.0.1:3142", "127.0.0.1:8080", "./var"},
		{runCommand{Config: file}, ":3142", ":8080", "/file"},
		{runCommand{Config: file, Data: "/flag", Proxy: ":1", Admin: ":2"}, ":1", ":2", "/flag"},
		{runCommand{Config: file, Proxy: "127.0.0.1:0", Admin: "127.0.0.1:0"}, "127.0.0.1:0", "127.0.0.1:0", "/file"},
	} {
		cfg, err := c.flags.settings()
		if err != nil || cfg.Proxy.Listen != c.proxy || cfg.Admin.Listen != c.admin || cfg.Store.Dir != c.dir {
			t.Errorf("%+v: %q %q %q, %v", c.flags, cfg.Proxy.Listen, cfg.Admin.Listen, cfg.Store.Dir, err)
		}
	}
	same := runCommand{Proxy: "127.0.0.1:9", Admin: "127.0.0.1:9"}
	if _, err := same.settings(); err == nil || !strings.Contains(err.Error(), "admin.listen") {
		t.Errorf("one address for both: %v", err)
	}
}

func TestThePanelGetsItsSection(t *testing.T) {
	cfg := config.Default()
	cfg.Admin.Session, cfg.Admin.MetricsOpen, cfg.Proxy.Listen = config.Duration(time.Hour), true, ":3142"
	got := adminConfig(cfg)
	if got.Session != time.Hour || !got.MetricsOpen || got.Proxy != ":3142" {
		t.Errorf("%+v", got)
	}
	cfg.Proxy.Advertise = "box.lan:3142"
	if got := adminConfig(cfg); got.Proxy != "box.lan:3142" {
		t.Errorf("advertised as %q", got.Proxy)
	}
}

func TestAdvertised(t *testing.T) {
	for _, c := range []struct{ advertise, listen, want string }{
		{"box.lan:3142", ":3142", "box.lan:3142"},
		{"", "10.1.2.3:3142", "10.1.2.3:3142"},
		{"", "localhost:3142", "localhost:3142"}, // nothing listens elsewhere
		{"", "[::1]:3142", "[::1]:3142"},
	} {
		if got := advertised(config.Proxy{Advertise: c.advertise, Listen: c.listen}); got != c.want {
			t.Errorf("%q, %q: %q, want %q", c.advertise, c.listen, got, c.want)
		}
	}
	for _, listen := range []string{":3142", "0.0.0.0:3142", "[::]:3142"} {
		got := advertised(config.Proxy{Listen: listen})
		if !strings.HasSuffix(got, ":3142") || strings.HasPrefix(got, ":") || strings.Contains(got, "0.0.0.0") || strings.Contains(got, "[::]") {
			t.Errorf("%q: %q is no address to go to", listen, got)
		}
	}
}

// TestPeerAddress: peers connect where clients do, so that a box on loopback
// opens nothing to the network.
func TestPeerAddress(t *testing.T) {
	for _, c := range []struct{ proxy, peering, want string }{
		{"127.0.0.1:3142", "", "127.0.0.1:6881"},
		{":3142", "", ":6881"},
		{"[fd00::1]:3142", "", "[fd00::1]:6881"},
		{"127.0.0.1:3142", ":7000", ":7000"},
	} {
		cfg := config.Default()
		cfg.Proxy.Listen, cfg.Peering.Listen = c.proxy, c.peering
		if got := peerAddress(cfg); got != c.want {
			t.Errorf("proxy %q, peering %q: %q, want %q", c.proxy, c.peering, got, c.want)
		}
	}
}

func TestAdvice(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{syscall.ENOSPC, "make room"},
		{fmt.Errorf("open: %w", index.ErrFull), "make room"},
		{fmt.Errorf("open: %w", index.ErrReadOnly), "read-only"},
		{&os.PathError{Op: "mkdir", Path: "/x", Err: syscall.EROFS}, "read-only"},
		{syscall.EIO, "another one"},
	} {
		err := advise("/data", c.err)
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "/data") {
			t.Errorf("%v: %v", c.err, err)
		}
	}
	if err := advise("/data", os.ErrPermission); err != os.ErrPermission {
		t.Errorf("not a disk's: %v", err)
	}
}

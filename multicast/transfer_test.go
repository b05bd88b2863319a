package multicast

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cistern-edge/cistern/multicast/norm"
)

// TestFilesCrossALossyLAN: an empty file, small ones and a large one reach
// receivers that lose packets, in every way of feedback, and are confirmed.
func TestFilesCrossALossyLAN(t *testing.T) {
	for _, c := range []struct {
		name, group string
		unicast     bool
		interleave  int
	}{
		{"asm", "239.77.0.1:6003", false, 1},
		{"asm, unicast", "239.77.0.1:6003", true, 8},
		{"ssm", "232.77.0.1:6003", true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := t.TempDir()
			var files []string
			for i, size := range []int{0, 1, 1399, 1400, 1401, 300_000} {
				files = append(files, filepath.Join(in, string(rune('a'+i))+".bin"))
				if err := os.WriteFile(files[i], noise(uint64(i), size), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out := []string{t.TempDir(), t.TempDir(), t.TempDir()}
			synctest.Test(t, func(t *testing.T) {
				h, group := newHub(), netip.MustParseAddrPort(c.group)
				var wg sync.WaitGroup
				for i, dir := range out {
					cfg := FileReceiverConfig{
						Group: group, Interface: "lan", Dir: dir, Node: norm.NodeID(i + 1), Unicast: c.unicast, Count: len(files),
					}
					if sourceSpecific(group.Addr()) {
						cfg.Source = netip.MustParseAddr("10.0.0.1")
					}
					r, err := newFileReceiver(cfg, h.host("10.0.0."+string(rune('2'+i)), 0.1, uint64(i)), testLog())
					if err != nil {
						t.Fatal(err)
					}
					wg.Go(func() {
						if err := r.Run(t.Context()); err != nil {
							t.Error(err)
						}
					})
				}
				time.Sleep(time.Millisecond)
				s, err := newFileSender(FileSenderConfig{
					Group: group, Interface: "lan", Files: files, Ackers: []norm.NodeID{1, 2, 3}, Rate: 20e6, Interleave: c.interleave, Node: 99,
				}, h.host("10.0.0.1", 0.1, 77), testLog())
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Run(t.Context()); err != nil {
					t.Error(err)
				}
				wg.Wait()
				if st := s.Stats(); st.Sent != st.Size || st.Wire <= st.Size || !st.Ackers[2].Confirmed {
					t.Errorf("figures do not add up: %+v", st)
				}
			})
			for _, dir := range out {
				sameFiles(t, dir, files)
			}
		})
	}
}

// sameFiles checks that a directory has these files and nothing else.
func sameFiles(t *testing.T, dir string, files []string) {
	t.Helper()
	for _, f := range files {
		want, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, filepath.Base(f))); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, want the same %d: %v", filepath.Base(f), len(got), len(want), err)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != len(files) {
		t.Errorf("%d entries in %s, want %d: %v", len(list), dir, len(files), err)
	}
}

// TestTransfersGiveUp: a sender whose acker is not there and a receiver whose
// sender is not there say so once their time is over.
func TestTransfersGiveUp(t *testing.T) {
	in := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(in, noise(1, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h, group := newHub(), netip.MustParseAddrPort("239.77.0.1:6003")
		s, err := newFileSender(FileSenderConfig{
			Group: group, Interface: "lan", Files: []string{in}, Ackers: []norm.NodeID{5}, Timeout: 5 * time.Second,
		}, h.host("10.0.0.1", 0, 1), testLog())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := s.Run(t.Context()); !errors.Is(err, ErrUnconfirmed) {
			t.Errorf("sender: %v, want ErrUnconfirmed", err)
		}
		if took := time.Since(began); took < 5*time.Second || took > 7*time.Second {
			t.Errorf("the sender gave up after %s, want some 5 s", took)
		}
		r, err := newFileReceiver(FileReceiverConfig{Group: group, Interface: "lan", Dir: dir, Node: 5, Timeout: 5 * time.Second}, h.host("10.0.0.2", 0, 1), testLog())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(t.Context()); !errors.Is(err, ErrTimeout) {
			t.Errorf("receiver: %v, want ErrTimeout", err)
		}
	})
	sameFiles(t, dir, nil)
}

func TestTransferConfigsTellEveryFault(t *testing.T) {
	for _, c := range []struct {
		err  error
		keys []string
	}{
		{FileSenderConfig{}.Validate(), []string{"group", "interface", "files"}},
		{FileSenderConfig{Rate: 1, SegmentSize: 1, K: 250, Parity: 9, Interleave: -1, TTL: 900, Ackers: []norm.NodeID{0}}.Validate(), []string{"rate", "segment", "parity", "interleave", "ttl", "acker"}},
		{FileReceiverConfig{}.Validate(), []string{"group", "interface", "dir", "node"}},
		{FileReceiverConfig{Group: netip.MustParseAddrPort("232.1.1.1:1"), Count: -1, Buffer: 1}.Validate(), []string{"source", "count", "buffer"}},
	} {
		for _, key := range c.keys {
			if c.err == nil || !strings.Contains(c.err.Error(), key+":") {
				t.Errorf("%v does not name %s", c.err, key)
			}
		}
	}
}

func TestFileNamesAreMadeSafe(t *testing.T) {
	for info, want := range map[string]string{
		"plain.iso": "plain.iso", "../../etc/passwd": "passwd", `..\..\boot.ini`: "boot.ini", ".ssh": "ssh", "/": "", "..": "", "": "",
		"a\x1b[31mb": "a_[31mb", "name\x00\x00": "name", "-rf": "rf", "c:evil": "c_evil", "\xff\xfe.bin": "__.bin", "x/..": "", " .hidden": "hidden",
		strings.Repeat("ä", 300) + ".txt": strings.Repeat("ä", 98) + ".txt",
	} {
		if got := fileName([]byte(info)); got != want {
			t.Errorf("%q becomes %q, want %q", info, got, want)
		}
	}
}

// FuzzFileName: whatever NORM_INFO holds, the name stays in its directory and is
// not hidden.
func FuzzFileName(f *testing.F) {
	for _, seed := range []string{"file", "../x", ".a", "\x00", "a/b/c", "..", `c:\x`, strings.Repeat("é/", 200)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, info []byte) {
		name := fileName(info)
		if name == "" {
			return
		}
		if strings.ContainsAny(name, "/\\\x00\n") || name[0] == '.' || !filepath.IsLocal(name) || len(name) > maxFileName || filepath.Base(name) != name {
			t.Errorf("%q becomes %q", info, name)
		}
	})
}

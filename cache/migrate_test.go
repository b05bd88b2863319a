package cache

import (
	"archive/tar"
	"compress/gzip"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// unpack puts the store of format 1 of testdata/v1.txt into a directory.
func unpack(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open("testdata/v1.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o700)
		} else {
			var body []byte
			if body, err = io.ReadAll(tr); err == nil {
				err = os.MkdirAll(filepath.Dir(path), 0o700)
			}
			if err == nil {
				err = os.WriteFile(path, body, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// bodyOf1 is the body that testdata/v1.txt describes.
func bodyOf1(num byte, size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = num + 1 + byte(i/content.LeafSize)
	}
	for leaf := 0; leaf*content.LeafSize+8 <= size; leaf++ {
		binary.BigEndian.PutUint64(data[leaf*content.LeafSize:], uint64(leaf))
	}
	return data
}

// TestMigration opens a store of format 1, also after a crash at each step of
// the way, and finds everything.
func TestMigration(t *testing.T) {
	crashes := map[string]func(dir string) error{
		"clean": func(string) error { return nil },
		"new index half written": func(dir string) error {
			return os.MkdirAll(filepath.Join(dir, newIndex, "rubbish"), 0o700)
		},
	}
	for crash, do := range crashes {
		t.Run(crash, func(t *testing.T) {
			dir := t.TempDir()
			unpack(t, dir)
			if err := do(dir); err != nil {
				t.Fatal(err)
			}
			s := open(t, Config{Dir: dir})
			for range 2 {
				wantObject(t, s, "http://fixture.test/empty", nil)
				wantObject(t, s, "http://fixture.test/small", bodyOf1(1, 40<<10))
				wantObject(t, s, "http://fixture.test/big", bodyOf1(2, 2560<<10))
				info, meta, ok := s.Lookup("btih:0123456789abcdef0123456789abcdef01234567/big")
				if !ok || !info.Pinned || !info.Public || string(meta) != "\x00\x01\x02\xff" || len(info.Names) != 2 ||
					info.ID.String() != "1086cca9359ef6467bd250e2981da06f20d6d57b76ad3afa39a51bf5568bf549-2621440" {
					t.Errorf("big is %+v, %q, %v", info, meta, ok)
				}
				if _, meta, _ := s.Lookup("http://fixture.test/small"); string(meta) != "meta of http://fixture.test/small" {
					t.Errorf("meta of small is %q", meta)
				}
				if s.Stats().Filled["fixture"] == 0 {
					t.Errorf("figures are %v", s.Stats().Filled)
				}
				part, _, ok := s.Lookup("http://fixture.test/partial")
				if !ok || part.Complete || part.Size != 5*mib {
					t.Fatalf("partial is %+v, %v", part, ok)
				}
				f, err := s.OpenFill(part.Num, nil)
				if err != nil {
					t.Fatal(err)
				}
				if want := (content.Ranges{{Off: 0, End: mib}, {Off: 3 * mib, End: 4 * mib}}); !slices.Equal(f.readable, want) {
					t.Errorf("durable of partial is %v, want %v", f.readable, want)
				}
				balanceIdle(t, s)
				s = reopen(t, s)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "index*")); len(left) != 1 {
				t.Errorf("left behind: %s", strings.Join(left, " "))
			}
		})
	}
}

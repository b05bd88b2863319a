//go:build soak

package hwtest

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/image"
)

// TestImageNoDisk: a box whose data cannot be used comes up, serves, and says why
// and what helps; it makes nothing anew before somebody asks for it.
func TestImageNoDisk(t *testing.T) {
	for _, row := range []struct {
		name, says string
		spoil      func(t *testing.T, m *machine)
		held       func(t *testing.T, m *machine) string // what has to stay
	}{
		{"damaged", "what lies on it is damaged", damage, dataHash},
		{"full", "it is full", fill, ballastHash},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := newMachine(t, pc{}, newFoundry(t).base(t), 0) // nothing to grow into
			row.spoil(t, m)
			held := row.held(t, m)
			m.powerOn(t)
			s := m.awaitWithout(t, row.says)
			if row.held(t, m) != held {
				t.Error("the box has changed what lay on its disk")
			}
			if u, err := m.box.Order(t.Context(), client.SystemOrder{Do: client.Reset, Erase: true}); err != nil || u.State != "done" {
				t.Fatalf("reset: %+v, %v", u, err)
			}
			s = m.await(t, "the reset", func(now client.System) bool { return now.Started.After(s.Started.Add(10*time.Second)) && working(now) })
			if s.Boots != 1 {
				t.Errorf("after the reset the box is %+v", s)
			}
		})
	}
	t.Run("readonly", func(t *testing.T) {
		m := newFoundry(t).running(t)
		m.powerOff() // as a power cut does
		arguments := m.arguments()
		for i, a := range arguments {
			if strings.Contains(a, "file="+m.disk) {
				arguments[i] += ",readonly=on"
			}
		}
		m.start(t, arguments)
		s := m.awaitWithout(t, "can only be read")
		if len(s.Slots) != 2 || s.Slots[0].Starts != 1 {
			t.Errorf("it does not know what it was: %+v", s)
		}
		if _, err := m.box.Order(t.Context(), client.SystemOrder{Do: client.Reset, Erase: true}); err == nil || !strings.Contains(err.Error(), "replace it") {
			t.Errorf("a disk that takes nothing was reset: %v", err)
		}
	})
}

// awaitWithout waits until the panel says why there are no data, and sees that the
// rest works.
func (m *machine) awaitWithout(t *testing.T, why string) client.System {
	t.Helper()
	s := m.await(t, "the panel of a box without data", func(s client.System) bool { return strings.Contains(s.Waiting, why) })
	w := newWorld(t)
	waitLong(t, "an answer through the box", func() bool { return m.fetch(t.Context(), w, "/file") == nil })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+m.panel+"/system", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+applianceToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(page), why) {
		t.Errorf("the page System: %v, %v\n%s", resp.Status, err, page)
	}
	if _, err := m.offer(t, newFoundry(t).good(t)); err == nil || !strings.Contains(err.Error(), "cannot be used") {
		t.Errorf("an update: %v", err)
	}
	t.Logf("figure: image, a box without data passes on what it is asked for, and says: %q: %s", s.Waiting, verdict(!t.Failed()))
	return s
}

// damage writes over the beginning of the data partition.
func damage(t *testing.T, m *machine) {
	t.Helper()
	f, err := os.OpenFile(m.disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(strings.Repeat("not a file system ", 4000)), image.Partitions()[image.PartData-1].Start); err != nil {
		t.Fatal(err)
	}
}

var freeBlocks = regexp.MustCompile(`Free blocks: +(\d+)`)

// fill leaves not a byte of the data partition.
func fill(t *testing.T, m *machine) {
	t.Helper()
	found := freeBlocks.FindSubmatch(m.debugfs(t, "stats -h"))
	if found == nil {
		t.Fatal("debugfs does not say how many blocks are free")
	}
	blocks, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	m.ballast(t, blocks*4096)
	if left := freeBlocks.FindSubmatch(m.debugfs(t, "stats -h")); left == nil || string(left[1]) != "0" {
		t.Fatalf("blocks left free: %q", left)
	}
}

func (m *machine) debugfs(t *testing.T, ask string) []byte {
	t.Helper()
	at := fmt.Sprintf("%s?offset=%d", m.disk, image.Partitions()[image.PartData-1].Start)
	out, err := exec.Command("debugfs", "-R", ask, at).Output()
	if err != nil {
		t.Fatalf("debugfs %s (package e2fsprogs): %v", ask, err)
	}
	return out
}

func ballastHash(t *testing.T, m *machine) string {
	t.Helper()
	return fmt.Sprintf("%x", sha256.Sum256(m.debugfs(t, "cat ballast")))
}

func dataHash(t *testing.T, m *machine) string {
	t.Helper()
	f, err := os.Open(m.disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := image.Partitions()[image.PartData-1]
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, p.Start, p.Size)); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

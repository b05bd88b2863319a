package hwtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/hwtest/lab"
)

// TestWeightOfTheBox: what the box weighs with many objects in its store, small
// ones read until its RAM tier is full, and many clients that have gone quiet
// without leaving.
func TestWeightOfTheBox(t *testing.T) {
	small, large, idle := 5000, 100, 100
	if soak() {
		small, large, idle = 100_000, 10_000, 1000
	}
	s := newScene(t)
	data := t.TempDir()
	smallIDs := stock(t, cache.Config{Dir: data, MaxBytes: 50e9}, small, 1<<10)
	largeIDs := stock(t, cache.Config{Dir: data, MaxBytes: 50e9}, large, 1<<20)
	box, err := actors.StartBox(t.Context(), s.box, bin, data, s.config)
	if err != nil {
		t.Fatal(err)
	}
	addr := s.box.AddrPort(3142)
	read(t, s.clients[0], addr, smallIDs, 1<<10)
	read(t, s.clients[1], addr, largeIDs[:min(large, 1000)], 1<<20)
	for i := range idle {
		client := newKeeper(t, s.clients[i%2], addr)
		defer client.conn.Close()
		client.get(t, smallIDs[i], 1<<10)
	}
	name := fmt.Sprintf("store.rss: box with %d objects of 1 KiB, %d of 1 MiB, %d idle connections", small, large, idle)
	weigh(t, name, box.Process.Pid(), 150)
}

// TestWeightOfAnAgent: what an agent weighs with a thousand objects.
func TestWeightOfAnAgent(t *testing.T) {
	const objects = 1000
	s := newScene(t)
	box, err := actors.StartBox(t.Context(), s.box, bin, t.TempDir(), s.config)
	if err != nil {
		t.Fatal(err)
	}
	var enrolment struct {
		Fingerprint string `json:"fingerprint"`
	}
	if err := box.API(t.Context(), "/api/v1/enrolment", &enrolment); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	ids := stock(t, cache.Config{Dir: filepath.Join(data, "store"), MaxBytes: 20e9, Small: true}, objects, 32<<10)
	agent, err := actors.StartAgent(t.Context(), s.clients[0], bin, data, box.URL(), enrolment.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	read(t, s.clients[0], "127.0.0.1:"+actors.ProxyPort, ids, 32<<10)
	weigh(t, fmt.Sprintf("store.rss: agent with %d objects", objects), agent.Process.Pid(), 48)
}

// hollow is a Source of an object that differs from all others in its first
// bytes, and has a hole of zeros behind: the disk is not written for it.
type hollow struct{ seed uint64 }

func (h hollow) Name() string { return "hollow" }

// Fill implements content.Source.
func (h hollow) Fill(_ context.Context, sink content.Sink) error {
	if _, err := sink.WriteAt(binary.BigEndian.AppendUint64(nil, h.seed), 0); err != nil {
		return err
	}
	return sink.Accept(content.Range{End: sink.Size()})
}

// stock fills the store of a box that is not running, and gives the identities
// of the objects.
func stock(t *testing.T, cfg cache.Config, count int, size int64) []content.ID {
	t.Helper()
	store, err := cache.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]content.ID, count)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for i := next.Add(1) - 1; int(i) < count && !t.Failed(); i = next.Add(1) - 1 {
				name := fmt.Sprintf("http://mirror.example.org/pool/%d/package-%d.deb", size, i)
				f, err := store.Create(cache.Spec{Object: content.Object{Size: size}, Title: name, Public: true}, name, nil)
				if err == nil {
					f.Start(hollow{uint64(i)})
					<-f.Done()
					err = f.Err()
				}
				if err != nil {
					t.Error(err)
					return
				}
				info, _ := store.Get(f.Num())
				ids[i] = info.ID
			}
		})
	}
	workers.Wait()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return ids
}

// read gets objects by their identities, over one connection.
func read(t *testing.T, from *lab.Host, addr string, ids []content.ID, size int64) {
	t.Helper()
	k := newKeeper(t, from, addr)
	defer k.conn.Close()
	for _, id := range ids {
		k.get(t, id, size)
	}
}

// keeper is a client that keeps its connection.
type keeper struct {
	conn net.Conn
	in   *bufio.Reader
	addr string
}

func newKeeper(t *testing.T, from *lab.Host, addr string) *keeper {
	t.Helper()
	conn, err := from.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return &keeper{conn, bufio.NewReader(conn), addr}
}

func (k *keeper) get(t *testing.T, id content.ID, size int64) {
	t.Helper()
	if _, err := fmt.Fprintf(k.conn, "GET /o/%s HTTP/1.1\r\nHost: %s\r\n\r\n", id, k.addr); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(k.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n != size || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %d bytes of %d, %v", id, resp.Status, n, size, err)
	}
}

// weigh waits until a process has come to rest, and takes its resident memory in
// MB, shared pages of files included.
func weigh(t *testing.T, name string, pid int, bound float64) {
	t.Helper()
	time.Sleep(5 * time.Second)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	mb := map[string]float64{}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[2] == "kB" {
			kb, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			mb[strings.TrimSuffix(f[0], ":")] = kb / 1024
		}
	}
	if mb["VmRSS"] < 1 {
		t.Fatalf("no VmRSS in %s", bytes.TrimSpace(status))
	}
	t.Logf("%s: %.1f MB, of it %.1f of files; at most it was %.1f", name, mb["VmRSS"], mb["RssFile"], mb["VmHWM"])
	figure(t, name, mb["VmRSS"], bound, "MB")
}

package cache

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// The scale test runs the test binary again as a child that fills a store with
// very many small objects and is killed, and then as others that take the time
// from Open until an object has been read, and are killed too: with 5,000
// objects, or with CISTERN_SOAK=1 a million. What was filled in six minutes is
// kept for the next run if that is not all, or if the figure is short.
const (
	scaleDirEnv  = "CISTERN_SCALE_CHILD" // set in the child: the store's directory
	scaleFillEnv = "CISTERN_SCALE_FILL"  // set in the child that fills: how many objects

	scaleTime = 6 * time.Minute // for a fill
)

// scaleName is what object k is called: as long as an address is.
func scaleName(k int) string {
	return fmt.Sprintf("http://mirror.example.org/debian/pool/main/%02x/package-%d_1.2.3-4_amd64.deb", k%251, k)
}

func scaleBody(k int) []byte { return fmt.Appendf(nil, "the body of object %d", k) }

// scaleChild fills, or opens and reads, and waits to be killed.
func scaleChild(dir string) {
	began := time.Now()
	s, err := Open(Config{Dir: dir, MinFree: 1, MaxBytes: 100e9}, slog.New(slog.DiscardHandler))
	if err == nil {
		if count := 0; os.Getenv(scaleFillEnv) != "" {
			if _, err = fmt.Sscan(os.Getenv(scaleFillEnv), &count); err == nil {
				err = scaleFill(s, count)
			}
		} else {
			err = scaleRead(s, rand.IntN(s.Stats().Objects))
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("done", time.Since(began).Nanoseconds(), s.Stats().Objects)
	time.Sleep(time.Minute) // the parent kills it long before
}

// scaleFill brings in the objects that are not here yet, for as long as there is
// time. While the index waits for the disk there is no room for more.
func scaleFill(s *Store, count int) error {
	debug.SetGCPercent(400) // what is measured is not this
	go func() { _ = s.Run(context.Background()) }()
	until := time.Now().Add(scaleTime)
	var workers sync.WaitGroup
	const parts = 4
	errs := make([]error, parts)
	for part := range parts {
		workers.Go(func() {
			for k := part; k < count && errs[part] == nil && time.Now().Before(until); {
				var err error
				if info, _, ok := s.Lookup(scaleName(k)); !ok || !info.Complete {
					err = scalePut(s, k)
				}
				if errors.Is(err, content.ErrFull) {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				errs[part], k = err, k+parts
			}
		})
	}
	workers.Wait()
	s.flushSmall()
	return errors.Join(append(errs, s.books.index.Commit(context.Background()))...)
}

func scalePut(s *Store, k int) error {
	data := scaleBody(k)
	f, err := s.Create(Spec{Object: content.Object{Size: int64(len(data))}, Title: scaleName(k), Public: true}, scaleName(k), []byte("200 OK"))
	if err != nil {
		return err
	}
	f.Start(from("memory", data, mib))
	<-f.Done()
	return f.Err()
}

// scaleRead reads object k by its name.
func scaleRead(s *Store, k int) error {
	info, _, ok := s.Lookup(scaleName(k))
	if !ok || !info.Complete {
		return fmt.Errorf("object %d is not complete: %+v", k, info)
	}
	r, err := s.Read(info.Num)
	if err != nil {
		return err
	}
	defer r.Close()
	var got bytes.Buffer
	_, err = r.WriteRange(context.Background(), &got, content.Range{End: info.Size})
	if err == nil && !bytes.Equal(got.Bytes(), scaleBody(k)) {
		err = fmt.Errorf("object %d reads %q", k, got.Bytes())
	}
	return err
}

// scaleRun runs a child until it is done, kills it, and gives how long that was,
// on the clock and on the processor, and how many objects it saw.
func scaleRun(t *testing.T, dir string, env ...string) (wall, cpu time.Duration, objects int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), scaleDirEnv+"="+dir), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	err = errors.Join(err, cmd.Process.Kill())
	ended := cmd.Wait() // by the signal of ours, if all went well
	if _, serr := fmt.Sscanf(line, "done %d %d", &wall, &objects); err != nil || serr != nil {
		t.Fatalf("the child said %q and ended with %v: %v", line, ended, errors.Join(err, serr))
	}
	return wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), objects
}

// TestScale opens a store of very many objects after kill -9 and reads one.
func TestScale(t *testing.T) {
	count, rounds, soak := 5_000, 1, os.Getenv("CISTERN_SOAK") == "1"
	if soak {
		count, rounds = 1_000_000, 5
	}
	dir := t.TempDir()
	if soak {
		dir = filepath.Join(os.TempDir(), "cistern-scale")
	}
	took, cpu, filled := scaleRun(t, dir, fmt.Sprintf("%s=%d", scaleFillEnv, count))
	t.Logf("filled %d objects in %v, %v of CPU", filled, took.Round(time.Second), cpu.Round(time.Second))
	if filled < count {
		t.Fatalf("%d of %d objects are in %s: run this again to go on", filled, count, dir)
	}
	var walls, cpus []time.Duration
	for range rounds {
		wall, cpu, objects := scaleRun(t, dir)
		if objects != count {
			t.Errorf("%d objects are here, want %d", objects, count)
		}
		t.Logf("ready after %v, %v of CPU", wall, cpu)
		walls, cpus = append(walls, wall), append(cpus, cpu)
	}
	slices.Sort(walls)
	slices.Sort(cpus)
	wall, cpu := walls[rounds/2].Round(time.Millisecond), cpus[rounds/2].Round(time.Millisecond)
	verdict := "not judged at this size"
	if soak {
		verdict = "ok"
		if wall > 2*time.Second {
			verdict = "short"
			t.Errorf("ready after %v, at most 2s", wall)
		}
	}
	if !t.Failed() { // else it is there for the next run
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
	t.Logf("figure: store.open: ready with %d objects after kill -9, median of %d, %v of CPU: %v (2s): %s", count, rounds, cpu, wall, verdict)
}

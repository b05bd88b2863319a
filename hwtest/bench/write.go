//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/cache/content"
)

// syncEvery is how many bytes a plain loop writes between two syncs: as many as
// the store does.
const syncEvery = 32 << 20

// cost is what writing an object took.
type cost struct{ rate, cpu []float64 } // MB/s and CPU-s/GB

// writeDurably writes objects until they are durable: through the store, by a
// plain loop of pwrite and fdatasync, and by one that hashes too, as the store
// must: the store's part is what it takes beyond that.
func writeDurably(ctx context.Context, b *bench) ([]line, error) {
	store, err := openStore(filepath.Join(b.dir, "store"), b.size)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	through := func(name string) error {
		num, err := put(store, name, b.size)
		if err != nil {
			return err
		}
		return store.Evict(num)
	}
	sides := []struct {
		write func(name string) error
		cost
	}{
		{write: through},
		{write: func(name string) error { return plainLoop(filepath.Join(b.dir, name), b.size, false) }},
		{write: func(name string) error { return plainLoop(filepath.Join(b.dir, name), b.size, true) }},
	}
	for run := range b.runs {
		for i := range sides {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			s := &sides[(i+run)%len(sides)] // who goes first changes
			if err := s.measure(b.size, func() error { return s.write(fmt.Sprint("object-", run)) }); err != nil {
				return nil, err
			}
		}
	}
	ours, plain, hashed := sides[0], sides[1], sides[2]
	const loop, hashing = "pwrite + fdatasync", "the same + SHA-256 of leaves"
	return []line{
		compare("durable write", "MB/s", loop, ours.rate, plain.rate, 0),
		compare("durable write", "MB/s", hashing, ours.rate, hashed.rate, 0),
		compare("durable write", "CPU-s/GB", loop, ours.cpu, plain.cpu, 0),
		compare("durable write", "CPU-s/GB", hashing, ours.cpu, hashed.cpu, 0),
	}, nil
}

// measure times one write.
func (c *cost) measure(size int64, write func() error) error {
	began, worked := time.Now(), cpuTime()
	if err := write(); err != nil {
		return err
	}
	gb := float64(size) / 1e9
	c.rate = append(c.rate, 1000*gb/time.Since(began).Seconds())
	c.cpu = append(c.cpu, (cpuTime()-worked).Seconds()/gb)
	return nil
}

// plainLoop writes a file and removes it.
func plainLoop(name string, size int64, hash bool) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer os.Remove(name)
	var leaves []content.Hash
	for off := int64(0); off < size && err == nil; off += chunkSize {
		p := chunk(off)[:min(chunkSize, size-off)]
		if _, err = f.WriteAt(p, off); err == nil && hash {
			leaves, err = content.HashLeaves(leaves[:0], bytes.NewReader(p))
		}
		if end := off + chunkSize; err == nil && (end%syncEvery == 0 || end >= size) {
			err = unix.Fdatasync(int(f.Fd()))
		}
	}
	return errors.Join(err, f.Close())
}

// cpuTime is what this process has worked.
func cpuTime() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // fails for no such argument
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

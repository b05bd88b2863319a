//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// chunkSize is how much is written at a time, in bytes.
const chunkSize = 1 << 20

// noise is a chunk that no compression helps.
var noise = sync.OnceValue(func() []byte {
	p := make([]byte, chunkSize)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p) // never fails
	return p
})

// chunk is what objects have at off: chunks that differ in their first bytes. It
// holds until the next call.
func chunk(off int64) []byte {
	binary.BigEndian.PutUint64(noise(), uint64(off))
	return noise()
}

// memory is a Source that costs next to nothing.
type memory struct{ size int64 }

func (m memory) Name() string { return "memory" }

// Fill implements content.Source.
func (m memory) Fill(ctx context.Context, sink content.Sink) error {
	for ctx.Err() == nil {
		r, ok := sink.Claim(-1, chunkSize)
		if !ok {
			return nil
		}
		_, err := sink.WriteAt(chunk(r.Off)[:r.Len()], r.Off)
		if err == nil {
			err = sink.Accept(r)
		}
		sink.Release(r)
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// openStore opens a store as the box does.
func openStore(dir string, size int64) (*cache.Store, error) {
	return cache.Open(cache.Config{Dir: dir, MaxBytes: 4*size + 1<<30}, slog.New(slog.DiscardHandler))
}

// put brings an object into a store, and returns when it is durable.
func put(store *cache.Store, name string, size int64) (uint64, error) {
	f, err := store.Create(cache.Spec{Object: content.Object{Size: size}, Title: name, Public: true}, name, nil)
	if err != nil {
		return 0, err
	}
	f.Start(memory{size})
	<-f.Done()
	if err := f.Err(); err != nil {
		return 0, err
	}
	return f.Num(), store.Pin(f.Num(), true) // waits for the index
}

// startBox runs the box with an object in its store, and gives the path that
// leads to it.
func (b *bench) startBox(ctx context.Context) (*server, string, error) {
	dir := filepath.Join(b.dir, "box")
	store, err := openStore(dir, b.size)
	if err != nil {
		return nil, "", err
	}
	num, err := put(store, "http://bench.invalid/object", b.size)
	info, _ := store.Get(num)
	if cerr := store.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, "", err
	}
	proxy, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	admin, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	config := filepath.Join(b.dir, "box.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, boxConfig, proxy, admin, dir), 0o600); err != nil {
		return nil, "", err
	}
	box, err := start(ctx, proxy, filepath.Join(b.dir, "box.log"), oneWorker, filepath.Join(b.bin, "cisternd"), "--config", config)
	return box, fmt.Sprint("/o/", info.ID), err
}

// oneWorker is what nginx calls worker_processes 1.
var oneWorker = []string{"GOMAXPROCS=1"}

// boxConfig has no scrub: with one object in the store it is all that the scrub
// reads, and not what is measured.
const boxConfig = `version = 1
[proxy]
listen = %q
[admin]
listen = %q
[store]
dir = %q
scrub_period = "off"
[peering]
enabled = false
`

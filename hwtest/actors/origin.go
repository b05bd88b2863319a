package actors

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// WriteContent makes a file of size bytes that no compression helps, the same
// for the same seed, and returns its SHA-256 in hexadecimal.
func WriteContent(name string, size int64, seed uint64) (digest string, err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return "", fmt.Errorf("make content: %w", err)
	}
	f, err := os.Create(name)
	if err != nil {
		return "", fmt.Errorf("make content: %w", err)
	}
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	h := sha256.New()
	_, err = io.CopyN(io.MultiWriter(f, h), rand.NewChaCha8(key), size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("make content %s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Origin is an HTTP server of one directory that counts what it is asked for
// and the body bytes that it sends. It gives strong validators and an hour of
// freshness, and understands ranges.
type Origin struct {
	dir      string
	server   http.Server
	done     sync.WaitGroup
	requests atomic.Int64
	body     atomic.Int64
}

// NewOrigin serves the files of dir.
func NewOrigin(dir string) *Origin {
	o := &Origin{dir: dir}
	o.server.Handler = o
	o.server.ReadHeaderTimeout = 30 * time.Second
	return o
}

// Start serves on l until Close.
func (o *Origin) Start(l net.Listener) {
	o.done.Go(func() { _ = o.server.Serve(l) })
}

// Close stops serving and cuts what is on its way.
func (o *Origin) Close() error {
	err := o.server.Close()
	o.done.Wait()
	return err
}

// Requests is how many requests came since the start.
func (o *Origin) Requests() int64 { return o.requests.Load() }

// Body is how many body bytes were sent since the start.
func (o *Origin) Body() int64 { return o.body.Load() }

// ServeHTTP implements http.Handler.
func (o *Origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.requests.Add(1)
	f, err := os.Open(filepath.Join(o.dir, filepath.FromSlash(path.Clean("/"+r.URL.Path))))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.IsDir() {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprintf("%x-%x", st.ModTime().UnixNano(), st.Size())))
	w.Header().Set("Cache-Control", "max-age=3600")
	http.ServeContent(&countingWriter{w, &o.body}, r, st.Name(), st.ModTime(), f)
}

// countingWriter adds up the body bytes that pass.
type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

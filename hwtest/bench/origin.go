//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// origin is what everybody caches: small objects under /small/ and a large one at
// /large, fresh for a day.
type origin struct {
	addr   string
	server *http.Server
	asked  atomic.Int64
}

// smallSize is the size of an object under /small/, in bytes.
const smallSize = 1 << 10

func startOrigin(large int64) (*origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &origin{addr: l.Addr().String()}
	o.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.asked.Add(1)
		h := w.Header()
		h.Set("Cache-Control", "public, max-age=86400")
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
		h.Set("Etag", `"1"`)
		size := large
		if strings.HasPrefix(r.URL.Path, "/small/") {
			size = smallSize
		}
		h.Set("Content-Length", fmt.Sprint(size))
		for off := int64(0); off < size; off += chunkSize {
			if _, err := w.Write(noise()[:min(chunkSize, size-off)]); err != nil {
				return
			}
		}
	})}
	go func() { _ = o.server.Serve(l) }() // ends with close
	return o, nil
}

func (o *origin) close() { _ = o.server.Close() }

// url is the address of a path.
func (o *origin) url(path string) string { return "http://" + o.addr + path }

// request asks a forward proxy for a path.
func (o *origin) request(path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n", o.url(path), o.addr)
}

// quiet makes sure that nobody asks the origin while f runs: what is measured
// are hits.
func (o *origin) quiet(ctx context.Context, f func() error) error {
	before := o.asked.Load()
	if err := errors.Join(f(), ctx.Err()); err != nil {
		return err
	}
	if n := o.asked.Load() - before; n > 0 {
		return fmt.Errorf("%d requests went to the origin, so these are no hits", n)
	}
	return nil
}

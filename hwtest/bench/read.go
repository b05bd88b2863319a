//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// bytesPerRun is how much is read for one figure, about.
const bytesPerRun = 4 << 30

// readWarm sends a large object that is in the page cache to a TCP socket, from
// the second read since the start on: the box's /o/ beside nginx's sendfile as
// Debian configures it.
func readWarm(ctx context.Context, b *bench) ([]line, error) {
	nginx, err := b.startNginx(ctx)
	if err != nil {
		return nil, err
	}
	defer nginx.stop()
	box, path, err := b.startBox(ctx)
	if err != nil {
		return nil, err
	}
	defer box.stop()
	sides := []*reading{{server: box, target: path}, {server: nginx, target: "/object"}}
	if err := b.readInTurn(ctx, sides, b.size); err != nil {
		return nil, err
	}
	ours, theirs := sides[0], sides[1]
	return []line{
		compare("warm read to TCP, 1 worker", "CPU-s/GB", "nginx sendfile", ours.cpu, theirs.cpu, 1.05),
		compare("warm read to TCP, 1 worker", "MB/s", "nginx sendfile", ours.rate, theirs.rate, 0),
	}, nil
}

// reading is what reading an object from a server took.
type reading struct {
	*server
	target    string
	cpu, rate []float64 // CPU-s/GB and MB/s
}

// readInTurn reads an object from each side, over and over. The first read of
// each counts for nothing.
func (b *bench) readInTurn(ctx context.Context, sides []*reading, size int64) error {
	for _, s := range sides {
		if err := readOnce(ctx, s.addr, s.target, size); err != nil {
			return err
		}
	}
	for run := range b.runs {
		for i := range sides {
			s := sides[(i+run)%len(sides)] // who goes first changes
			if err := s.measure(ctx, size); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure takes one figure.
func (s *reading) measure(ctx context.Context, size int64) error {
	reads := max(1, bytesPerRun/size)
	before, err := s.server.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	for range reads {
		if err := readOnce(ctx, s.addr, s.target, size); err != nil {
			return err
		}
	}
	took := time.Since(began).Seconds()
	after, err := s.server.cpu()
	if err != nil {
		return err
	}
	gb := float64(reads) * float64(size) / 1e9
	s.cpu, s.rate = append(s.cpu, (after-before)/gb), append(s.rate, 1000*gb/took)
	return nil
}

// readOnce gets a path over a connection of its own and drops what comes.
func readOnce(ctx context.Context, addr, path string, want int64) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, addr); err != nil {
		return err
	}
	in := bufio.NewReaderSize(conn, 256<<10)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	defer resp.Body.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, make([]byte, 256<<10))
	if err != nil || n != want || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s, %d bytes of %d: %w", path, resp.Status, n, want, err)
	}
	return nil
}

// nginxConfig is Debian's, less what does not concern one file on one port.
const nginxConfig = `daemon off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log stderr;
events { worker_connections 768; }
http {
	sendfile on;
	tcp_nopush on;
	types_hash_max_size 2048;
	access_log off;
	client_body_temp_path %[1]s;
	proxy_temp_path %[1]s;
	fastcgi_temp_path %[1]s;
	uwsgi_temp_path %[1]s;
	scgi_temp_path %[1]s;
	server { listen %[2]s; root %[1]s; }
}
`

// startNginx serves an object at /object.
func (b *bench) startNginx(ctx context.Context) (*server, error) {
	program, err := find("nginx", "nginx-light")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	// As root nginx gives its workers to another user, who has to come in.
	dir := filepath.Join(b.dir, "nginx")
	if err := errors.Join(os.Chmod(b.dir, 0o755), os.Mkdir(dir, 0o755), writeObject(filepath.Join(dir, "object"), b.size)); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, addr), 0o644); err != nil {
		return nil, err
	}
	return start(ctx, addr, filepath.Join(b.dir, "nginx.log"), nil, program, "-p", dir, "-c", config)
}

// writeObject writes the object as a file.
func writeObject(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	for off := int64(0); off < size && err == nil; off += chunkSize {
		_, err = f.Write(chunk(off)[:min(chunkSize, size-off)])
	}
	return errors.Join(err, f.Close())
}

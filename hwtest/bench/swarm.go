//go:build linux

package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	panel "github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/hwtest/actors"
)

//go:embed swarm.py
var swarmProgram string

// swarmSize is the torrent's, at most the size of the other comparisons.
const swarmSize = 500 << 20

const (
	seedPort  = 16881
	leechPort = 16882
)

// swarmLoopback fetches a torrent from seeds on loopback, beside libtorrent.
func swarmLoopback(ctx context.Context, b *bench) (lines []line, err error) {
	content := filepath.Join(b.dir, "seeds")
	if err := os.Mkdir(content, 0o755); err != nil {
		return nil, err
	}
	size := min(b.size, swarmSize)
	if err := writeObject(filepath.Join(content, "release.iso"), size); err != nil {
		return nil, err
	}
	torrent, err := actors.MakeTorrent(filepath.Join(content, "release.iso"), b.dir, "http://192.0.2.1/announce")
	if err != nil {
		return nil, err
	}
	for _, seeds := range []int{1, 20} {
		more, err := b.fromSeeds(ctx, torrent, content, seeds, size)
		if err != nil {
			return nil, fmt.Errorf("from %d seeds: %w", seeds, err)
		}
		lines = append(lines, more...)
	}
	return lines, nil
}

// leeching is what fetching a torrent took.
type leeching struct{ rate, cpu, rss, late []float64 } // MB/s, CPU-s/GB, MB above idle, CPU-s/GB afterwards

func (l *leeching) add(size int64, seconds, cpu float64) {
	l.rate = append(l.rate, float64(size)/1e6/seconds)
	l.cpu = append(l.cpu, cpu/(float64(size)/1e9))
}

func (b *bench) fromSeeds(ctx context.Context, t actors.Torrent, content string, seeds int, size int64) ([]line, error) {
	var hosts []string
	for i := range seeds {
		hosts = append(hosts, fmt.Sprintf("127.0.7.%d", i+1))
	}
	arg := map[string]any{"torrent": t.V1.Path, "dir": content, "addrs": hosts, "port": seedPort}
	swarm := python(arg)
	out, err := swarm.StdoutPipe()
	if err == nil {
		err = swarm.Start()
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = swarm.Process.Kill()
		_ = swarm.Wait()
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("start seeds: %q, %w", line, err)
	}
	var ours, theirs leeching
	for run := range b.runs {
		sides := []func() error{
			func() error { return b.boxLeeches(ctx, t, hosts, size, &ours) },
			func() error { return b.libtorrentLeeches(t, hosts, size, &theirs) },
		}
		for i := range sides {
			if err := sides[(i+run)%2](); err != nil {
				return nil, err
			}
		}
	}
	of := fmt.Sprintf("%d MiB from %d seeds", size>>20, seeds)
	limit := []float64{100}
	return []line{
		compare(of+", the identity afterwards", "CPU-s/GB", "cistern, until then", ours.late, ours.cpu, 0),
		compare(of, "MB/s", "libtorrent", ours.rate, theirs.rate, 1).atLeast(),
		compare(of, "CPU-s/GB", "libtorrent", ours.cpu, theirs.cpu, 1.15),
		compare(of+", peak RSS above idle", "MB", "bound", ours.rss, limit, 1),
	}, nil
}

func python(arg map[string]any) *exec.Cmd {
	text, _ := json.Marshal(arg) // of texts and numbers
	cmd := exec.Command("/usr/bin/python3", "-c", swarmProgram, string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (b *bench) libtorrentLeeches(t actors.Torrent, hosts []string, size int64, to *leeching) error {
	dir, err := os.MkdirTemp(b.dir, "libtorrent-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	out, err := python(map[string]any{"torrent": t.V1.Path, "dir": dir, "peers": hosts, "port": leechPort, "seedport": seedPort}).Output()
	if err != nil {
		return fmt.Errorf("libtorrent: %w", err)
	}
	var seconds, cpu float64
	if _, err := fmt.Sscan(string(out), &seconds, &cpu); err != nil {
		return fmt.Errorf("libtorrent said %q: %w", out, err)
	}
	to.add(size, seconds, cpu)
	return nil
}

// boxLeeches runs a new box until it has the torrent.
func (b *bench) boxLeeches(ctx context.Context, t actors.Torrent, hosts []string, size int64, to *leeching) (err error) {
	dir, err := os.MkdirTemp(b.dir, "box-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	proxy, perr := freeAddr()
	admin, aerr := freeAddr()
	listen, lerr := freeAddr()
	config, cerr := write(dir, "box.toml", swarmBoxConfig, proxy, admin, dir, listen)
	if err := errors.Join(perr, aerr, lerr, cerr); err != nil {
		return err
	}
	box, err := start(ctx, admin, filepath.Join(dir, "log"), nil, filepath.Join(b.bin, "cisternd"), "--config", config)
	if err != nil {
		return err
	}
	defer box.stop()
	time.Sleep(time.Second)
	token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		return err
	}
	api, err := panel.New(panel.Config{Box: "http://" + admin, Token: strings.TrimSpace(string(token))})
	if err != nil {
		return err
	}
	text, err := os.ReadFile(t.V1.Path)
	if err != nil {
		return err
	}
	idle, err := box.rss()
	if err != nil {
		return err
	}
	before, err := box.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	magnet := "magnet:?xt=urn:btih:" + hex.EncodeToString(t.V1.Infohash[:])
	for _, host := range hosts {
		magnet += fmt.Sprintf("&x.pe=%s:%d", host, seedPort)
	}
	if _, err := api.Add(ctx, panel.Addition{Torrent: text}); err != nil {
		return err
	}
	if _, err := api.Add(ctx, panel.Addition{Magnet: magnet}); err != nil {
		return err
	}
	peak, have, err := idle, before, nil
	for limit := began.Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		rss, rerr := box.rss()
		list, lerr := api.Swarms(ctx)
		now, cerr := box.cpu()
		if err := errors.Join(rerr, lerr, cerr); err != nil {
			return err
		}
		peak = max(peak, rss)
		if have == before && len(list) == 1 && list[0].BytesHave == size {
			to.add(size, time.Since(began).Seconds(), now-before)
			have = now
		}
		if len(list) == 1 && list[0].State == "complete" { // the identity is known
			to.rss = append(to.rss, (peak-idle)/1e6)
			to.late = append(to.late, (now-have)/(float64(size)/1e9))
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("the box did not get it in 3 minutes: %+v", list)
		}
	}
}

const swarmBoxConfig = `version = 1
[proxy]
listen = %q
allow_destinations = ["127.0.0.0/8"]
[admin]
listen = %q
[store]
dir = %q
scrub_period = "off"
[peering]
listen = %q
lan = ["10.0.0.0/8"]
upload = "0"
`

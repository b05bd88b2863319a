package actors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// Authorities is the bundle of certificate authorities that clients trust.
const Authorities = "/etc/ssl/certs/ca-certificates.crt"

// PeerKinds are the torrent clients that StartPeer knows, as Debian has them.
var PeerKinds = []string{"aria2", "qbittorrent", "transmission", "rtorrent"}

// Peer is an ordinary torrent client on a host, at its default settings: it
// fetches, stays to seed, and uses what discovery it has.
type Peer struct {
	Kind    string
	Host    *lab.Host
	Process *lab.Process
	dir     string
	done    func(ctx context.Context, name string) bool
}

// StartPeer runs a client of a kind on a host for a torrent. It keeps everything
// in dir.
func StartPeer(ctx context.Context, kind string, host *lab.Host, torrent, dir string) (*Peer, error) {
	for _, sub := range []string{"", "files", "watch", "session", "qBittorrent/config"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("start %s: %w", kind, err)
		}
	}
	p := &Peer{Kind: kind, Host: host, dir: dir}
	files := filepath.Join(dir, "files")
	mark := filepath.Join(dir, "session", "whole") // where a client calls us when it is done
	touch := filepath.Join(dir, "touch")
	if err := os.WriteFile(touch, []byte("#!/bin/sh\n: >"+mark+"\n"), 0o755); err != nil {
		return nil, fmt.Errorf("start %s: %w", kind, err)
	}
	p.done = func(context.Context, string) bool { return exists(mark) }
	switch kind {
	case "aria2":
		dht := filepath.Join(dir, "dht")
		p.Process = host.Command("aria2c", "--no-conf", "--dir="+files, "--dht-file-path="+dht, "--dht-file-path6="+dht+"6", "--summary-interval=0",
			"--on-bt-download-complete="+touch, torrent)
	case "qbittorrent":
		// The legal notice is a question to a person, and the panel of this lab is
		// asked without a password.
		settings := "[LegalNotice]\nAccepted=true\n[Preferences]\nWebUI\\LocalHostAuth=false\n"
		if err := os.WriteFile(filepath.Join(dir, "qBittorrent/config/qBittorrent.conf"), []byte(settings), 0o644); err != nil {
			return nil, fmt.Errorf("start %s: %w", kind, err)
		}
		p.Process = host.Command("qbittorrent-nox", "--profile="+dir, "--save-path="+files, "--skip-dialog=true", torrent)
		p.done = p.asked
	case "transmission":
		p.Process = host.Command("transmission-daemon", "--foreground", "--config-dir", dir, "--watch-dir", filepath.Join(dir, "watch"), "--download-dir", files, "--no-auth")
		p.done = p.renamed
		if err := copyFile(torrent, filepath.Join(dir, "watch", filepath.Base(torrent))); err != nil {
			return nil, fmt.Errorf("start %s: %w", kind, err)
		}
	case "rtorrent":
		settings := filepath.Join(dir, "rtorrent.rc")
		text := "system.daemon.set = true\nmethod.set_key = event.download.finished, mark, \"execute=" + touch + "\"\n"
		if err := os.WriteFile(settings, []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("start %s: %w", kind, err)
		}
		p.Process = host.Command("rtorrent", "-n", "-d", files, "-s", filepath.Join(dir, "session"), "-o", "import="+settings, torrent)
	default:
		return nil, fmt.Errorf("start %s: no such client here", kind)
	}
	// OpenSSL otherwise has its authorities one by one; some clients meet
	// others themselves in the directory for temporary files.
	temp := host.File("tmp-" + filepath.Base(filepath.Dir(dir)))
	if err := os.MkdirAll(temp, 0o755); err != nil {
		return nil, fmt.Errorf("start %s: %w", kind, err)
	}
	p.Process.Env = []string{"HOME=" + dir, "TMPDIR=" + temp, "SSL_CERT_FILE=" + Authorities}
	return p, p.Process.Start(ctx)
}

// File is where the client puts a file of its torrent.
func (p *Peer) File(name string) string { return filepath.Join(p.dir, "files", name) }

// Done says whether the client has the whole file.
func (p *Peer) Done(ctx context.Context, name string) bool { return p.done(ctx, name) }

// Stop ends the client.
func (p *Peer) Stop() error {
	p.Process.Grace = time.Second // some wait for their trackers
	_ = p.Process.Stop()
	<-p.Process.Done()
	return nil
}

// renamed: Transmission names a file only when it is whole.
func (p *Peer) renamed(_ context.Context, name string) bool { return exists(p.File(name)) }

// asked asks qBittorrent.
func (p *Peer) asked(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8080/api/v2/torrents/info", nil)
	if err != nil {
		return false
	}
	resp, err := p.Host.HTTPClient().Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var torrents []struct {
		Progress float64 `json:"progress"`
		State    string  `json:"state"`
	}
	if json.NewDecoder(resp.Body).Decode(&torrents) != nil || len(torrents) == 0 {
		return false
	}
	return torrents[0].Progress == 1 && torrents[0].State != "checkingUP" && exists(p.File(name))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

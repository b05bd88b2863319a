package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cistern-edge/cistern/hwtest/actors"
)

// startBox starts the box and its agents.
func (s *stage) startBox(ctx context.Context, c *lanCommand) (*actors.Box, error) {
	config := fmt.Sprintf(`version = 1
[proxy]
listen = "0.0.0.0:%s"
[peering]
max_connections = 20
[multicast]
interfaces = [%q]
rate = %q
`, actors.ProxyPort, s.boxLAN.Interface(), c.Rate)
	box, err := actors.StartBox(ctx, s.box, c.Bin, filepath.Join(s.dir, "box"), config)
	if err != nil {
		return nil, err
	}
	var enrolment struct {
		Fingerprint string `json:"fingerprint"`
	}
	if err := box.API(ctx, "/api/v1/enrolment", &enrolment); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, h := range s.agents {
		g.Go(func() error {
			// The agent lives as long as the stage, not as long as this group.
			_, err := actors.StartAgent(ctx, h, c.Bin, filepath.Join(s.dir, h.Name()), box.URL(), enrolment.Fingerprint)
			if gctx.Err() != nil {
				return gctx.Err()
			}
			return err
		})
	}
	return box, g.Wait()
}

// measureBox plays the same wishes with the box and samples its outside peers.
func (s *stage) measureBox(ctx context.Context, box *actors.Box) (figures, error) {
	peers, err := s.router.WatchFlows(100*time.Millisecond, outsidePeer)
	if err != nil {
		return figures{}, err
	}
	f, err := s.measure(ctx, func(ctx context.Context) error { return s.withBox(ctx, box) })
	if err != nil {
		return f, err
	}
	flows, err := peers.Stop()
	if err != nil {
		return f, err
	}
	if flows.Samples < 10 {
		return f, fmt.Errorf("outside peers were sampled %d times only", flows.Samples)
	}
	f.peakPeers = flows.Peak
	f.casts, err = casts(ctx, box)
	return f, err
}

// withBox lets every host ask for both at once. Agents ask their own proxy, the
// others the box.
func (s *stage) withBox(ctx context.Context, box *actors.Box) error {
	if _, err := box.Command(ctx, "add", s.torrent.Hybrid.Path); err != nil {
		return err
	}
	path := fmt.Sprintf("/o/btih:%x/%s", s.torrent.Hybrid.Infohash, s.torrent.Name)
	g, ctx := errgroup.WithContext(ctx)
	for _, h := range s.agents {
		own := "http://127.0.0.1:" + actors.ProxyPort
		g.Go(func() error { return s.curl(ctx, h, own, s.fileURL, s.fileSum) })
		g.Go(func() error { return s.curl(ctx, h, "", own+path, s.torrent.Sum) })
	}
	for _, h := range s.plain {
		g.Go(func() error { return s.curl(ctx, h, box.URL(), s.fileURL, s.fileSum) })
		g.Go(func() error { return s.curl(ctx, h, "", box.URL()+path, s.torrent.Sum) })
	}
	return g.Wait()
}

// casts asks the box what it has put on the wire for each object, by title.
func casts(ctx context.Context, box *actors.Box) (map[string]int64, error) {
	var answer []struct {
		Title string `json:"title"`
		Wire  int64  `json:"wire_bytes"`
	}
	if err := box.API(ctx, "/api/v1/casts", &answer); err != nil {
		return nil, err
	}
	sent := map[string]int64{}
	for _, c := range answer {
		title := c.Title[strings.LastIndexByte(c.Title, '/')+1:]
		sent[title] += c.Wire
	}
	return sent, nil
}

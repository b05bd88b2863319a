package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/cistern-edge/cistern/admin/client"
)

// maxTorrent bounds a .torrent file, in bytes.
const maxTorrent = 16 << 20

// pollEvery is how often --wait asks how far it is.
const pollEvery = 500 * time.Millisecond

type addCmd struct {
	What string `arg:"" help:"URL, magnet link, path of a .torrent or .meta4 file, or infohash."`
	Wait bool   `help:"Wait until all of it is here." short:"w"`
}

func (c *addCmd) Run(s *session) error {
	what, err := addition(c.What)
	if err != nil {
		return err
	}
	added, err := s.box.Add(s.ctx, what)
	if err != nil {
		return fmt.Errorf("add %s: %w", c.What, err)
	}
	if !c.Wait {
		if s.json {
			return s.printJSON(added)
		}
		s.say("added %s", describeAdded(added))
		return nil
	}
	if added.Infohash != "" {
		return waitFor(s, describeAdded(added), func() (progress, client.Swarm, error) { return swarmProgress(s, added.Infohash) })
	}
	return waitFor(s, describeAdded(added), func() (progress, client.Object, error) { return objectProgress(s, added.Object, c.What) })
}

// addition tells apart what can be added.
func addition(what string) (client.Addition, error) {
	lower := strings.ToLower(what)
	switch {
	case strings.HasPrefix(lower, "magnet:"):
		return client.Addition{Magnet: what}, nil
	case strings.HasPrefix(lower, "http://"), strings.HasPrefix(lower, "https://"):
		return client.Addition{URL: what}, nil
	}
	if raw, err := hex.DecodeString(what); err == nil && len(raw) == 20 {
		return client.Addition{Magnet: "magnet:?xt=urn:btih:" + lower}, nil
	} else if err == nil && len(raw) == 32 { // a multihash: 0x12 is SHA-256, 0x20 its length
		return client.Addition{Magnet: "magnet:?xt=urn:btmh:1220" + lower}, nil
	}
	file, err := os.Open(what)
	if err != nil {
		return client.Addition{}, fmt.Errorf("add %s: it is no URL (http:// or https://), magnet link or infohash, and as a file: %w", what, err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxTorrent+1))
	switch {
	case err != nil:
		return client.Addition{}, fmt.Errorf("add %s: %w", what, err)
	case len(data) > maxTorrent:
		return client.Addition{}, fmt.Errorf("add %s: a .torrent file has at most %d bytes", what, maxTorrent)
	case len(data) == 0 || data[0] != 'd' && data[0] != '<':
		return client.Addition{}, fmt.Errorf("add %s: is neither a .torrent file nor a metalink", what)
	}
	return client.Addition{Torrent: data}, nil
}

func describeAdded(a client.Added) string {
	if a.Infohash != "" {
		return fmt.Sprintf("swarm %s %s", a.Infohash, plain(a.Name))
	}
	return fmt.Sprintf("object %d %s", a.Object, plain(a.Name))
}

// progress is how far something is.
type progress struct {
	have, size int64 // size 0 or less: not known
	done       bool
}

// waitFor polls until look says done, draws that on a terminal, and prints what
// came of it.
func waitFor[T any](s *session, title string, look func() (progress, T, error)) error {
	var bar *progressbar.ProgressBar
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		p, what, err := look()
		if err != nil {
			return err
		}
		if screen := s.terminal(); screen != nil {
			if bar == nil {
				bar = newBar(screen, title)
			}
			draw(bar, p)
		}
		if p.done {
			if s.json {
				return s.printJSON(what)
			}
			s.say("done: %s, %s", title, size(p.have))
			return nil
		}
		select {
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case <-tick.C:
		}
	}
}

func newBar(w io.Writer, title string) *progressbar.ProgressBar {
	if len(title) > 40 {
		title = title[:40] + "…"
	}
	return progressbar.NewOptions64(-1, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(title),
		progressbar.OptionShowBytes(true), progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(100*time.Millisecond))
}

// draw moves the bar. A bar that cannot be drawn stops nothing.
func draw(bar *progressbar.ProgressBar, p progress) {
	if p.size > 0 {
		bar.ChangeMax64(p.size)
	}
	_ = bar.Set64(p.have)
	if p.done {
		_ = bar.Finish()
	}
}

func swarmProgress(s *session, infohash string) (progress, client.Swarm, error) {
	list, err := s.box.Swarms(s.ctx)
	if err != nil {
		return progress{}, client.Swarm{}, err
	}
	for _, w := range list {
		if w.Infohash == infohash {
			if w.State == "failed" {
				return progress{}, w, fmt.Errorf("swarm %s failed; the box's log says why", infohash)
			}
			return progress{w.BytesHave, w.Size, w.Size > 0 && w.BytesHave >= w.Size}, w, nil
		}
	}
	return progress{}, client.Swarm{}, fmt.Errorf("the box has left swarm %s", infohash)
}

// objectProgress asks by number, then by URL: an object with the same bytes may
// have taken its place.
func objectProgress(s *session, num uint64, address string) (progress, client.Object, error) {
	o, err := s.box.Object(s.ctx, fmt.Sprint(num))
	var refused *client.Error
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		o, err = s.box.Object(s.ctx, address)
	}
	if err != nil {
		return progress{}, o, err
	}
	if o.State == client.Partial {
		return progress{}, o, fmt.Errorf("the fill ended early with %s of %s; the next request goes on with it", size(o.Readable), size(o.Size))
	}
	return progress{o.Readable, o.Size, o.State == client.Complete}, o, nil
}

package peering

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/tracker"
	trackerhttp "github.com/anacrolix/torrent/tracker/http"
)

// The box announces by itself, so that it knows what it has told and whom it was
// told of: the client does not say.
const (
	announceTime = 30 * time.Second // for one announce
	soonest      = time.Minute      // between two of them, whatever the tracker says
	latest       = time.Hour
	firstRetry   = 15 * time.Second // doubled up to lastRetry
	lastRetry    = 15 * time.Minute
	wantedPeers  = 200 // more do not fit a datagram
	leavingTime  = 2 * time.Second
)

// announcer tells one tracker about one infohash of a torrent.
type announcer struct {
	share    *share
	url      string
	infohash [20]byte
	key      int32
}

// announceTo begins to announce to the trackers that are not announced to yet.
func (sh *share) announceTo(urls []string) {
	for _, u := range urls {
		sh.mu.Lock()
		known := sh.trackers[u]
		if sh.trackers == nil {
			sh.trackers = map[string]bool{}
		}
		sh.trackers[u] = true
		sh.mu.Unlock()
		if known {
			continue
		}
		for _, infohash := range sh.shortInfohashes() {
			a := &announcer{share: sh, url: u, infohash: infohash, key: int32(sh.added.UnixNano())}
			sh.swarm.work.Go(a.run)
		}
	}
}

// shortInfohashes are those of trackers and handshakes: a v2 one is cut to 20
// bytes (BEP 52).
func (sh *share) shortInfohashes() (all [][20]byte) {
	spec := sh.specNow()
	if spec.V1 != [20]byte{} {
		all = append(all, spec.V1)
	}
	if spec.V2 != [32]byte{} {
		all = append(all, [20]byte(spec.V2[:20]))
	}
	return all
}

// run announces that the box has come, once that it has everything, and that it
// leaves.
func (a *announcer) run() {
	ctx := a.share.ctx
	event, retry := tracker.Started, firstRetry
	whole, greeted := a.share.whole, false
	if a.share.stateNow() == StateComplete {
		whole = nil // it came complete
	}
	for ctx.Err() == nil {
		wait, err := a.announce(ctx, event)
		if err != nil {
			a.share.swarm.log.Debug("failed to announce", "source", a.url, "title", a.share.title(), "err", err)
			wait, retry = retry, min(2*retry, lastRetry)
		} else {
			event, retry, greeted = tracker.None, firstRetry, true
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-whole:
			if whole = nil; greeted {
				event = tracker.Completed
			}
		}
		timer.Stop()
	}
	if !greeted {
		return
	}
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leavingTime)
	defer cancel()
	if _, err := a.announce(leaving, tracker.Stopped); err != nil {
		a.share.swarm.log.Debug("failed to announce the end", "source", a.url, "err", err)
	}
}

// announce says once how things are and takes in who else is there. It returns
// when the tracker wants to hear again.
func (a *announcer) announce(ctx context.Context, event tracker.AnnounceEvent) (wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	s := a.share.swarm
	t := a.share.t
	st := t.Stats()
	req := tracker.AnnounceRequest{
		InfoHash: a.infohash, PeerId: s.client.PeerID(), Key: a.key, Port: s.net.addr.Port(), Event: event, NumWant: wantedPeers,
		Uploaded: st.BytesWrittenData.Int64(), Downloaded: st.BytesReadUsefulData.Int64(), Left: math.MaxInt64,
	}
	if t.Info() != nil {
		req.Left = t.BytesMissing()
	}
	interval, named, err := tell(ctx, a.url, tracker.NewClientOpts{
		Http: trackerhttp.NewClientOpts{DialContext: trackerhttp.DialContextFunc(s.dial)}, ListenPacket: s.listenPacket, Slogger: s.quietLog(),
	}, req)
	if err != nil {
		return 0, fmt.Errorf("announce: %w", err)
	}
	if event != tracker.Stopped {
		a.share.meet(named, torrent.PeerSourceTracker)
	}
	return interval, nil
}

// tell sends one announce and reads its answer. The library panics on some faults
// of what it decodes.
func tell(ctx context.Context, url string, opts tracker.NewClientOpts, req tracker.AnnounceRequest) (interval time.Duration, named []netip.AddrPort, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("bad answer: %v", fault)
		}
	}()
	client, err := tracker.NewClient(url, opts)
	if err != nil {
		return 0, nil, err
	}
	defer client.Close()
	res, err := client.Announce(ctx, req, tracker.AnnounceOpt{})
	if err != nil {
		return 0, nil, err
	}
	for _, p := range res.Peers {
		if ap, ok := p.ToNetipAddrPort(); ok {
			named = append(named, ap)
		}
	}
	return min(max(time.Duration(res.Interval)*time.Second, soonest), latest), named, nil
}

// listenPacket opens a socket for a tracker's client, from which nothing is sent
// where the dialer would not go.
func (s *Swarm) listenPacket(network, addr string) (net.PacketConn, error) {
	pc, err := net.ListenPacket(network, addr)
	if err != nil {
		return nil, err
	}
	return &guardedPackets{PacketConn: pc, swarm: s}, nil
}

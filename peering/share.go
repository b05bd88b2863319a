package peering

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/types/infohash"
	infohash_v2 "github.com/anacrolix/torrent/types/infohash-v2"

	g "github.com/anacrolix/generics"

	"github.com/cistern-edge/cistern/cache"
)

// share is the box's part in one torrent, from Add to Remove.
type share struct {
	swarm  *Swarm
	t      *torrent.Torrent
	made   bool // by this box: for the LAN only
	added  time.Time
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{} // closed when run returns
	gone   chan struct{} // closed when it was taken off the list and has left the client

	takenDown sync.Once
	whole     chan struct{} // closed when the torrent has become complete
	plan      plan
	near      nearby
	guests    guests
	lulls     map[*torrent.PeerConn]lull // as the Swarm's loop last saw them
	faults    *faults                    // of who is to blame here

	got   int64     // of the pieces' bytes when tend last looked
	since time.Time // when that changed

	given, givenKept atomic.Int64 // bytes to the outside, ever, and as written down

	// mu guards what follows. It is never held while the client is called.
	mu     sync.Mutex
	spec   *Spec
	files  []*file // nil until the info is known
	pieces *pieces
	state  State
	err    error
	// trackers are those that are announced to.
	trackers map[string]bool
}

// join gives a torrent to the client and runs it. files are those of bind, or
// nil for a magnet.
func (s *Swarm) join(spec *Spec, files []*file, made bool, added time.Time) (*share, error) {
	t, isNew, err := s.client.AddTorrentSpec(&torrent.TorrentSpec{
		AddTorrentOpts: torrent.AddTorrentOpts{
			InfoHash:                 infohash.T(spec.V1),
			InfoHashV2:               g.OptionFromTuple(infohash_v2.T(spec.V2), spec.V2 != [32]byte{}),
			InfoBytes:                spec.Info,
			DeferStorageOpen:         true,
			DisableInitialPieceCheck: true,
		},
		DisplayName: spec.Name,
		PieceLayers: spec.Layers,
	})
	if err != nil {
		return nil, fmt.Errorf("join torrent %s: %w", spec.Key(), err)
	}
	if !isNew {
		return nil, fmt.Errorf("join torrent %s: another one has an infohash of it", spec.Key())
	}
	sh := &share{
		swarm: s, t: t, made: made, added: added, spec: spec, ended: make(chan struct{}), gone: make(chan struct{}), whole: make(chan struct{}),
		state: StateMetadata, faults: newFaults(),
	}
	if made {
		s.forLAN.Store(t, true)
	}
	sh.readGiven()
	sh.ctx, sh.cancel = context.WithCancel(s.ctx)
	if files != nil {
		sh.setFiles(spec.layout, files)
	}
	sh.contact(spec)
	s.work.Go(sh.run)
	return sh, nil
}

// run takes the torrent from its metadata to complete files, and keeps sharing
// them until the share is closed or the swarm ends.
func (sh *share) run() {
	defer close(sh.ended)
	if sh.swarm.net.dht != nil && !sh.made {
		sh.swarm.work.Go(sh.announceDHT)
	}
	err := sh.metadata()
	if err == nil {
		err = sh.fetch()
	}
	switch {
	case sh.ctx.Err() != nil:
	case errors.Is(err, errOthers), errors.Is(err, cache.ErrIncomplete):
		sh.swarm.work.Go(func() {
			if sh.pause(rejoinAfter) {
				sh.swarm.rejoin(sh)
			}
		})
		<-sh.ctx.Done()
	case err != nil:
		sh.fail(err)
	default:
		sh.setState(StateComplete)
		sh.swarm.log.Info("completed torrent", "title", sh.title(), "torrent", sh.key())
		sh.saveLayers()
		sh.swarm.rebalance()
		<-sh.ctx.Done()
	}
	for _, f := range sh.fileList() {
		close(f.left)
	}
}

// metadata waits for the info of a magnet and binds its files.
func (sh *share) metadata() error {
	if sh.fileList() != nil {
		return nil
	}
	select {
	case <-sh.t.GotInfo():
	case <-sh.ctx.Done():
		return sh.ctx.Err()
	}
	mi := sh.t.Metainfo()
	spec := &Spec{Info: mi.InfoBytes, Layers: mi.PieceLayers, Trackers: sh.spec.Trackers, WebSeeds: sh.spec.WebSeeds}
	limits := sh.spec.limits
	if limits == (Limits{}) {
		limits = sh.swarm.limits()
	}
	if err := spec.setInfo(limits); err != nil {
		return fmt.Errorf("metadata from peers: %w", err)
	}
	if l := spec.layout; l.v2 && l.hasEmpty() && l.checkLayers(spec.Layers) != nil {
		// Messages about hashes are not let through for such a torrent.
		return errors.New("a v2 torrent with empty files needs its .torrent file")
	}
	return sh.adopt(spec)
}

// adopt gives the share the files of its info.
func (sh *share) adopt(spec *Spec) error {
	files, err := sh.swarm.bind(spec)
	if err != nil {
		return err
	}
	if err := sh.swarm.relabel(sh, spec); err != nil {
		return errors.Join(err, sh.swarm.unbind(files))
	}
	sh.setFiles(spec.layout, files)
	return nil
}

// fetch starts the fills and waits until every file is complete.
func (sh *share) fetch() error {
	files := sh.fileList()
	for _, f := range files {
		if f.fill == nil {
			continue
		}
		f.want = sh.hurry(f)
		f.fill.Keep()
		f.fill.HashLate()
		if f.mine = f.fill.Start(f); f.mine || f.fill.Join(f) {
			continue
		}
		if <-f.fill.Done(); f.fill.Err() != nil { // somebody else had begun it
			return f.fill.Err()
		}
	}
	for _, f := range files {
		if f.fill == nil {
			continue
		}
		select {
		case <-f.begun:
		case <-f.fill.Done():
		case <-sh.ctx.Done():
			return sh.ctx.Err()
		}
	}
	broken := make(chan error, 1)
	report := func(err error) {
		select {
		case broken <- err:
		default:
		}
	}
	sh.pieces.broken = report
	sh.t.SetOnWriteChunkError(report)
	if err := sh.t.OpenStorage(sh.ctx, sh.pieces); err != nil {
		return fmt.Errorf("open storage: %w", err)
	}
	sh.t.DownloadAll()
	sh.addWebSeeds(sh.specNow().WebSeeds)
	sh.addMirrors(append(sh.specNow().mirrors, sh.swarm.cfg.mirrorsOf(sh.specNow().layout)...))
	defer sh.startMirrors()()
	sh.swarm.rebalance()
	for _, f := range files {
		if f.fill == nil {
			continue
		}
		select {
		case <-f.fill.Done():
		case err := <-broken:
			return fmt.Errorf("keep a piece: %w", err)
		case <-sh.ctx.Done():
			return sh.ctx.Err()
		}
		if err := f.fill.Err(); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(files, func(f *file) bool { return f.fill != nil && f.missing.Load() > 0 }) {
		return errOthers
	}
	return nil
}

// fail ends the work for a torrent that cannot be had; it stays listed with the
// reason.
func (sh *share) fail(err error) {
	sh.swarm.log.Warn("torrent failed", "title", sh.title(), "torrent", sh.key(), "err", err)
	sh.mu.Lock()
	sh.state, sh.err = StateFailed, err
	sh.mu.Unlock()
	sh.t.Drop()
	sh.swarm.rebalance()
}

// close ends the share and waits for it.
func (sh *share) close() {
	sh.cancel()
	<-sh.ended
	sh.t.Drop()
	sh.swarm.forLAN.Delete(sh.t)
	defer sh.swarm.left(sh)
	for _, f := range sh.fileList() {
		if f.mine {
			<-f.fill.Done() // what it has is durable then
		}
		f.tend(0)
	}
	if sh.isListed() {
		sh.keepGiven(1)
	}
}

// idleReader is how long an object stays open after a peer read from it.
const idleReader = 30 * time.Second

// tend looks after the files from time to time. A complete torrent that has
// lost a file to eviction is left: nothing is fetched twice unasked. So is one
// that was made of an object that is not public any more, and one that was taken
// down.
func (sh *share) tend() {
	if err := sh.swarm.denied(sh.specNow()); err != nil {
		sh.takenDown.Do(func() { sh.swarm.work.Go(func() { sh.swarm.takeDown(sh, err) }) }) // not from the loop that it waits for
		return
	}
	sh.keepGiven(16 << 20)
	sh.nudge(time.Now())
	gone := false
	for _, f := range sh.fileList() {
		info, ok := f.tend(idleReader)
		gone = gone || !f.pad && (!ok || sh.made && !info.Public)
	}
	if gone && sh.stateNow() == StateComplete {
		sh.swarm.log.Info("left a torrent whose file is gone", "title", sh.title(), "torrent", sh.key())
		sh.swarm.work.Go(func() { _ = sh.swarm.remove(sh) }) // not from the loop that it waits for
	}
}

func (sh *share) setFiles(l *layout, files []*file) {
	p := newPieces(l, files, &sh.swarm.assembled)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.files, sh.pieces, sh.state = files, p, StateFetching
}

func (sh *share) setState(state State) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	select {
	case <-sh.whole:
	default:
		if state == StateComplete {
			close(sh.whole)
		}
	}
	sh.state = state
}

func (sh *share) stateNow() State {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.state
}

func (sh *share) fileList() []*file {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.files
}

func (sh *share) specNow() *Spec {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.spec
}

func (sh *share) key() string   { return sh.specNow().Key() }
func (sh *share) title() string { return sh.specNow().Name }

// snapshot describes the torrent.
func (sh *share) snapshot() Torrent {
	sh.mu.Lock()
	spec, state, err, files := sh.spec, sh.state, sh.err, sh.files
	sh.mu.Unlock()
	snap := Torrent{
		InfoHash: spec.Key(), Name: spec.Name, State: state, Made: sh.made, Added: sh.added,
		Trackers: slices.Clone(spec.Trackers), Magnet: spec.magnet(), Given: sh.given.Load(),
	}
	snap.Liars = sh.liars()
	if spec.V2 != ([32]byte{}) {
		snap.InfoHashV2 = hex.EncodeToString(spec.V2[:])
	}
	if err != nil {
		snap.Err = err.Error()
	}
	if spec.layout != nil {
		snap.Private = spec.layout.private
	}
	for _, f := range files {
		if !f.pad {
			snap.Files = append(snap.Files, f.snapshot())
			snap.Size += f.size
			snap.Have += f.size - f.missing.Load()
		}
	}
	snap.Mirrors = sh.mirrorsNow()
	for _, m := range snap.Mirrors {
		snap.Down, snap.Wasted = snap.Down+m.Bytes, snap.Wasted+m.Wasted
	}
	if state == StateFailed {
		return snap
	}
	st := sh.t.Stats()
	useful := st.BytesReadUsefulData.Int64()
	snap.Down += useful
	snap.Wasted += st.BytesReadData.Int64() - useful
	snap.Up = st.BytesWrittenData.Int64()
	outside, lan := sh.conns()
	snap.Outside, snap.LAN = len(outside), len(lan)
	return snap
}

// metainfo gives the .torrent file as far as it is known.
func (sh *share) metainfo() metainfo.MetaInfo {
	mi := sh.t.Metainfo()
	mi.CreationDate, mi.Comment, mi.CreatedBy = 0, "", ""
	return mi
}

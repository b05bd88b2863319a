package peering

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/origin"
)

// Mirror is an HTTP server that brings pieces of a torrent beside its peers: a
// web seed (BEP 19) or an address of one of its files.
type Mirror struct {
	URL string `json:"url"`
	// Bytes are those of pieces that it brought, Wasted those that did not pass
	// their hash or that somebody else had brought meanwhile.
	Bytes  int64 `json:"bytes"`
	Wasted int64 `json:"wasted"`
	// Err says why it is not asked any more, or not for now.
	Err string `json:"err,omitempty"`
}

const (
	// A mirror is asked for about runTime of what it brings at a time, within
	// these bounds in bytes.
	minRun, maxRun = 1 << 20, 16 << 20
	runTime        = 2 * time.Second
	// mirrorIdle bounds the wait for the next byte.
	mirrorIdle = 20 * time.Second
	// maxMirrorFailures is how often in a row a mirror may fail, maxMirrorLies how
	// many pieces in all may be wrong, before it is given up.
	maxMirrorFailures, maxMirrorLies = 6, 2
	// mirrorChunk is how much is read and written at a time, in bytes.
	mirrorChunk = 128 << 10
)

var (
	errLies    = errors.New("it sends what the torrent's hashes refute")
	errUseless = errors.New("it does not have the file")
)

// mirror is one Mirror at work. It takes pieces that no peer has begun, keeps
// the client from asking for them, and has each proved as if a peer had sent it.
type mirror struct {
	share *share
	url   string
	name  string         // as a Source
	host  string         // as faults have it
	files map[int]string // the address of each file that it has

	// Only run touches these.
	rate     float64 // bytes a second lately
	failures int     // in a row

	// mu guards what follows.
	mu            sync.Mutex
	taps          map[int]*tap // by file
	bytes, wasted int64
	lies          int
	err           error
}

func newMirror(sh *share, text string, files map[int]string) (*mirror, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("mirror %q is not a URL", clip(text))
	}
	return &mirror{share: sh, url: text, name: "origin " + u.Hostname(), host: u.Hostname(), files: files, taps: map[int]*tap{}}, nil
}

// seeded is where a web seed has each file (BEP 19). An address that names a file
// has only that.
func (l *layout) seeded(text string) map[int]string {
	files := map[int]string{}
	for i, f := range l.files {
		switch {
		case f.pad:
		case !l.dir && !strings.HasSuffix(text, "/"):
			files[i] = text
		case !l.dir:
			files[i] = text + url.PathEscape(l.name)
		default:
			path := strings.TrimSuffix(text, "/") + "/" + url.PathEscape(l.name)
			for _, element := range strings.Split(f.path, "/") {
				path += "/" + url.PathEscape(element)
			}
			files[i] = path
		}
	}
	return files
}

// run brings pieces until none is missing, ctx is done, or the mirror is of no
// use.
func (m *mirror) run(ctx context.Context) {
	for ctx.Err() == nil {
		if m.share.near.feeds.Load() {
			wait(ctx, m.share.swarm.cfg.tick)
			continue
		}
		most := int64(min(max(m.rate*runTime.Seconds(), minRun), maxRun))
		taken, state := m.share.takePieces(m, most)
		switch state {
		case allDone:
			return
		case noneFree:
			wait(ctx, m.share.swarm.cfg.tick)
			continue
		}
		began := time.Now()
		n, err := m.bring(ctx, taken)
		m.share.returnPieces(taken)
		if took := time.Since(began).Seconds(); n > 0 && took > 0 {
			m.rate = float64(n) / took
		}
		if m.settle(ctx, n, err) {
			return
		}
	}
}

// settle judges a run, and waits before the next one if it failed. It says
// whether the mirror is given up.
func (m *mirror) settle(ctx context.Context, n int64, err error) (over bool) {
	if n > 0 {
		m.failures = 0
	}
	if err == nil || ctx.Err() != nil {
		m.setErr(nil)
		return ctx.Err() != nil
	}
	m.setErr(err)
	var busy *origin.BusyError
	var down *origin.OfflineError
	if errors.As(err, &busy) || errors.As(err, &down) { // not the mirror's fault
		wait(ctx, 20*m.share.swarm.cfg.tick)
		return false
	}
	m.failures++
	log := m.share.swarm.log
	if m.failures > maxMirrorFailures || errors.Is(err, errUseless) || m.lied() >= maxMirrorLies {
		log.Warn("gave up a mirror of a torrent", "title", m.share.title(), "url", m.url, "err", err)
		return true
	}
	log.Info("mirror of a torrent failed", "title", m.share.title(), "url", m.url, "err", err)
	wait(ctx, time.Second<<(m.failures-1))
	return false
}

// bring fetches what is missing of a run of pieces and has each proved as soon as
// it is whole. It returns how many bytes were.
func (m *mirror) bring(ctx context.Context, r run) (proved int64, err error) {
	p := m.share.pieces
	l := p.layout
	next, fetched := r.first, int64(0)
	finish := func(pos int64) error {
		for ; next < r.end && l.pieceEnd(next) <= pos; next++ {
			own := min(fetched, l.pieceBytes(next))
			fetched -= own
			ok, err := m.prove(ctx, next, own)
			if ok {
				proved += own
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, gap := range p.gaps(r) {
		for _, s := range l.spans(gap.Off, gap.Len()) {
			f := p.files[s.file]
			if f.pad || f.missing.Load() == 0 {
				continue
			}
			came := func(n int, end int64) error {
				fetched += int64(n)
				return finish(f.off + end)
			}
			if err := m.copy(ctx, s, came); err != nil {
				m.count(0, fetched)
				return proved, err
			}
		}
	}
	return proved, finish(l.pieceEnd(r.end - 1)) // what came last may be there already
}

// copy fetches a part of one file; came is told of what has come, and up to where.
func (m *mirror) copy(ctx context.Context, s span, came func(n int, end int64) error) error {
	t, err := m.tap(ctx, s.file)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := time.AfterFunc(mirrorIdle, cancel)
	defer idle.Stop()
	body, err := m.get(ctx, s)
	if err != nil {
		return err
	}
	defer body.Close()
	waking := &wakeful{body, idle}
	buf := make([]byte, mirrorChunk)
	for off := s.r.Off; off < s.r.End; {
		n, err := io.ReadFull(waking, buf[:min(mirrorChunk, s.r.End-off)])
		if n > 0 {
			if _, err := t.sink.WriteAt(buf[:n], off); err != nil {
				return err
			}
			off += int64(n)
			if err := came(n, off); err != nil {
				return err
			}
		}
		if err != nil && off < s.r.End {
			return fmt.Errorf("read at byte %d: %w", off, err)
		}
	}
	return nil
}

// wakeful is a body that winds up a timer with all that comes: what is read may be
// slow, because the uplink is shared, but not silent.
type wakeful struct {
	io.Reader
	timer *time.Timer
}

func (w *wakeful) Read(p []byte) (int, error) {
	w.timer.Reset(mirrorIdle)
	defer w.timer.Stop()
	return w.Reader.Read(p)
}

// get asks for a part of a file.
func (m *mirror) get(ctx context.Context, s span) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.files[s.file], nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUseless, err)
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", s.r.Off, s.r.End-1))
	resp, err := m.share.swarm.http.Do(req)
	if err != nil {
		return nil, err
	}
	size := m.share.pieces.files[s.file].size
	want := fmt.Sprintf("bytes %d-%d/%d", s.r.Off, s.r.End-1, size)
	if resp.StatusCode == http.StatusPartialContent && resp.Header.Get("Content-Range") == want ||
		resp.StatusCode == http.StatusOK && s.r.Len() == size && resp.ContentLength == size {
		m.share.addDuplicates(s.file, linksOf(resp).Mirrors)
		return resp.Body, nil
	}
	resp.Body.Close()
	err = fmt.Errorf("asked for %q, it answered %s with %q", want, clip(resp.Status), clip(resp.Header.Get("Content-Range")))
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", errUseless, err)
}

// prove has the client hash a piece, of which the mirror has brought so many
// bytes: they count for it if that is right.
func (m *mirror) prove(ctx context.Context, i int, fetched int64) (ok bool, err error) {
	p := m.share.pieces
	if p.isDone(i) { // others were quicker
		m.count(0, fetched)
		return false, nil
	}
	by, forget := p.ascribe(i, m)
	defer forget()
	if err := m.share.t.Piece(i).VerifyDataContext(ctx); err != nil {
		return false, err
	}
	select { // it returns a moment before the piece is marked
	case <-by.judged:
	case <-m.share.t.Closed():
		return false, errLeft
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if p.isDone(i) {
		m.count(fetched, 0)
		return true, nil
	}
	m.count(0, fetched)
	if fetched == p.layout.pieceBytes(i) { // nobody else is to blame
		m.mu.Lock()
		m.lies++
		m.mu.Unlock()
		m.share.swarm.faults.add(m.host, 1)
		m.share.faults.add(m.host, 1)
	}
	return false, fmt.Errorf("piece %d: %w", i, errLies)
}

// accept lets readers have bytes of a piece that was proved.
func (m *mirror) accept(file int, r content.Range) error {
	m.mu.Lock()
	t := m.taps[file]
	m.mu.Unlock()
	if t == nil { // complete already
		return nil
	}
	return t.sink.Accept(r)
}

// has says whether the mirror has every file of a piece.
func (m *mirror) has(i int) bool {
	p := m.share.pieces
	for _, s := range p.layout.piece(i) {
		f := p.files[s.file]
		if m.files[s.file] == "" && !f.pad && f.missing.Load() > 0 {
			return false
		}
	}
	return true
}

func (m *mirror) count(good, wasted int64) {
	s := m.share.swarm
	s.mirrored.Add(good)
	s.mirrorWaste.Add(wasted)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes, m.wasted = m.bytes+good, m.wasted+wasted
}

func (m *mirror) lied() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lies
}

func (m *mirror) setErr(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *mirror) snapshot() Mirror {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Mirror{URL: m.url, Bytes: m.bytes, Wasted: m.wasted}
	if m.err != nil {
		s.Err = m.err.Error()
	}
	return s
}

package peering

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"

	"github.com/cistern-edge/cistern/cache/content"
)

// noStorage is the client's default storage, which no torrent uses: each is
// added with its storage to be opened later.
type noStorage struct{}

func (noStorage) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{}, errors.New("torrent was added without its storage")
}

// pieces is the storage of one torrent: it spreads pieces over the files and
// knows which are complete. It implements storage.ClientImpl for that torrent.
type pieces struct {
	layout *layout
	files  []*file
	broken func(error) // the store does not take a piece
	coming *assemblies

	// mu guards what follows.
	mu   sync.Mutex
	done []bool
	by   map[int]*proof // pieces that mirrors have brought and that are being proved
	came content.Ranges // what peers have sent of pieces that are not done
}

// proof is a piece of a mirror that waits for its hash to be judged.
type proof struct {
	of     *mirror
	judged chan struct{} // closed
	once   sync.Once
}

// newPieces takes what the files' fills have already for complete.
// assembled counts the bytes that torrents hold in memory.
func newPieces(l *layout, files []*file, assembled *atomic.Int64) *pieces {
	p := &pieces{layout: l, files: files, done: make([]bool, l.pieces), by: map[int]*proof{}}
	p.coming = &assemblies{used: assembled, of: map[int]*assembly{}}
	missing := make([]content.Ranges, len(files))
	for i, f := range files {
		if f.fill != nil && !f.pad {
			missing[i] = f.fill.Missing()
			f.missing.Store(0)
		}
	}
	for i := range p.done {
		spans := l.piece(i)
		p.done[i] = true
		for _, s := range spans {
			if len(missing[s.file].Within(s.r)) > 0 {
				p.done[i] = false
			}
		}
		if p.done[i] {
			continue
		}
		for _, s := range spans {
			if files[s.file].fill != nil {
				files[s.file].missing.Add(s.r.Len())
			}
		}
	}
	return p
}

// isDone says whether a piece was proved.
func (p *pieces) isDone(i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done[i]
}

// gaps lists what no peer has sent of some pieces.
func (p *pieces) gaps(r run) []content.Range {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.came.Without(content.Range{Off: int64(r.first) * p.layout.pieceLength, End: p.layout.pieceEnd(r.end - 1)})
}

// missing lists the pieces that were not, in order.
func (p *pieces) missing() (all []run) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, done := range p.done {
		if n := len(all); !done && n > 0 && all[n-1].end == i {
			all[n-1].end++
		} else if !done {
			all = append(all, run{i, i + 1})
		}
	}
	return all
}

// ascribe says that a mirror has brought a piece, until forget is called.
func (p *pieces) ascribe(i int, m *mirror) (by *proof, forget func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	by = &proof{of: m, judged: make(chan struct{})}
	p.by[i] = by
	return by, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.by, i)
	}
}

// judged tells the mirror that brought a piece, if one did, that its hash was
// looked at.
func (p *pieces) judged(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if by := p.by[i]; by != nil {
		by.once.Do(func() { close(by.judged) })
	}
}

// OpenTorrent implements storage.ClientImpl.
func (p *pieces) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{
		Piece: func(mp metainfo.Piece) storage.PieceImpl {
			return &piece{pieces: p, index: mp.Index(), size: mp.Length()}
		},
		NewReader: func() storage.TorrentReader { return uploads{p} },
		Close: func() error {
			p.coming.clear()
			return nil
		},
	}, nil
}

// readAt reads n bytes of the torrent from off.
func (p *pieces) readAt(b []byte, off int64, read func(f *file, b []byte, off int64) (int, error)) (int, error) {
	n := 0
	for _, s := range p.layout.spans(off, int64(len(b))) {
		if int64(n) != s.at {
			break // past the end of a file of a v2 torrent
		}
		m, err := read(p.files[s.file], b[s.at:s.at+s.r.Len()], s.r.Off)
		n += m
		if int64(m) < s.r.Len() {
			if err == nil || errors.Is(err, io.EOF) {
				// Not io.EOF: the client would take the piece for lost.
				err = fmt.Errorf("read %s of %s: %w", s.r, p.files[s.file].name, io.ErrUnexpectedEOF)
			}
			return n, err
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// uploads reads what goes to peers, and counts it.
type uploads struct{ *pieces }

func (u uploads) ReadAt(b []byte, off int64) (int, error) {
	return u.readAt(b, off, func(f *file, b []byte, off int64) (int, error) {
		n, err := f.serveAt(b, off)
		f.served.Add(int64(n))
		return n, err
	})
}

func (u uploads) Close() error { return nil }

// piece implements storage.PieceImpl.
type piece struct {
	*pieces
	index int
	size  int64
}

func (p *piece) begin() int64 { return int64(p.index) * p.layout.pieceLength }

// ReadAt reads the piece back from the store, to hash it.
func (p *piece) ReadAt(b []byte, off int64) (int, error) {
	if err := p.keep(p.coming.take(p.index)); err != nil {
		return 0, err
	}
	return p.readAt(b, p.begin()+off, (*file).readAt)
}

// WriteAt takes bytes from a peer.
func (p *piece) WriteAt(b []byte, off int64) (int, error) {
	if p.isNew() {
		p.coming.begin(p.index, p.size)
	}
	if !p.coming.write(p.index, b, off) {
		if n, err := p.store(b, off); err != nil {
			return n, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.came.Add(content.Range{Off: p.begin() + off, End: p.begin() + off + int64(len(b))})
	return len(b), nil
}

// isNew says whether nothing has come of the piece.
func (p *piece) isNew() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.done[p.index] && len(p.came.Within(p.layout.pieceRange(p.index))) == 0
}

// store writes bytes of the piece to the store.
func (p *piece) store(b []byte, off int64) (int, error) {
	for _, s := range p.layout.spans(p.begin()+off, int64(len(b))) {
		if err := p.files[s.file].writeAt(b[s.at:s.at+s.r.Len()], s.r.Off); err != nil {
			return int(s.at), err
		}
	}
	return len(b), nil
}

// MarkComplete lets readers have the piece, whose hash was right.
func (p *piece) MarkComplete() error {
	spans := p.layout.piece(p.index)
	defer p.judged(p.index)
	p.mu.Lock()
	by, done := p.by[p.index], p.done[p.index]
	p.mu.Unlock()
	a := p.coming.take(p.index)
	defer p.coming.reuse(a)
	if done { // a mirror and a peer brought it: the fill may be over by now
		return nil
	}
	if err := p.keep(a); err != nil {
		p.broken(err)
		return err
	}
	for _, s := range spans {
		accept := p.files[s.file].accept
		if by != nil && !p.files[s.file].pad {
			accept = func(r content.Range) error { return by.of.accept(s.file, r) }
		}
		if err := accept(s.r); err != nil {
			p.broken(err) // the client would only log it
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done[p.index] {
		return nil
	}
	p.done[p.index] = true
	p.came.Remove(p.layout.pieceRange(p.index))
	for _, s := range spans {
		if f := p.files[s.file]; f.fill != nil {
			f.accepted(s.r.Len())
		}
	}
	return nil
}

// MarkNotComplete is told of a piece whose hash was wrong. It was never
// accepted, so its bytes count for nothing and are written over.
func (p *piece) MarkNotComplete() error {
	p.mu.Lock()
	p.came.Remove(p.layout.pieceRange(p.index))
	p.mu.Unlock()
	p.coming.reuse(p.coming.take(p.index))
	p.judged(p.index)
	return nil
}

// Completion says what is known of the piece: always all there is to know.
func (p *piece) Completion() storage.Completion {
	p.mu.Lock()
	defer p.mu.Unlock()
	return storage.Completion{Ok: true, Complete: p.done[p.index]}
}

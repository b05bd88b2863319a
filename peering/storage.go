package peering

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

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

	// mu guards what follows.
	mu   sync.Mutex
	done []bool
}

// newPieces takes what the files' fills have already for complete.
func newPieces(l *layout, files []*file) *pieces {
	p := &pieces{layout: l, files: files, done: make([]bool, l.pieces)}
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

// OpenTorrent implements storage.ClientImpl.
func (p *pieces) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{
		Piece:     func(mp metainfo.Piece) storage.PieceImpl { return &piece{pieces: p, index: mp.Index()} },
		NewReader: func() storage.TorrentReader { return uploads{p} },
		Close:     func() error { return nil },
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
}

func (p *piece) begin() int64 { return int64(p.index) * p.layout.pieceLength }

// ReadAt reads the piece back, to hash it.
func (p *piece) ReadAt(b []byte, off int64) (int, error) {
	return p.readAt(b, p.begin()+off, (*file).readAt)
}

// WriteAt stores bytes from a peer.
func (p *piece) WriteAt(b []byte, off int64) (int, error) {
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
	for _, s := range spans {
		if err := p.files[s.file].accept(s.r); err != nil {
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
	for _, s := range spans {
		if f := p.files[s.file]; f.fill != nil {
			f.accepted(s.r.Len())
		}
	}
	return nil
}

// MarkNotComplete is told of a piece whose hash was wrong. It was never
// accepted, so its bytes count for nothing and are written over.
func (p *piece) MarkNotComplete() error { return nil }

// Completion says what is known of the piece: always all there is to know.
func (p *piece) Completion() storage.Completion {
	p.mu.Lock()
	defer p.mu.Unlock()
	return storage.Completion{Ok: true, Complete: p.done[p.index]}
}

package peering

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// ErrNoTorrent says that no torrent is made for an object: it is not complete,
// not public, or empty.
var ErrNoTorrent = errors.New("no torrent is made for this object")

// HashingError says that a torrent is not ready, because the SHA-1 hashes of
// its pieces are still being computed.
type HashingError struct{ Done, Total int64 } // bytes

func (e *HashingError) Error() string {
	return fmt.Sprintf("the torrent is being made: %d of %d bytes are hashed", e.Done, e.Total)
}

// maxMade bounds the torrents that the box has made and serves; the one made
// longest ago goes first.
const maxMade = 256

// pieceLength is fixed by the size: 1 MiB, doubled until there are at most 2048
// pieces, or it is 16 MiB.
func pieceLength(size int64) int64 {
	n := int64(content.BlockSize)
	for size > 2048*n && n < 16<<20 {
		n *= 2
	}
	return n
}

// Torrent makes the v1+v2 .torrent file (BEP 52) of a complete public object.
// Its info is a pure function of the object's identity, the name and a piece
// length fixed by the size; web seed and trackers stand beside it. From then on
// the swarm serves that torrent to the LAN, and to nobody else. The error is a
// *HashingError until the piece hashes are ready, or wraps ErrNoTorrent.
func (s *Swarm) Torrent(ctx context.Context, num uint64, name string) ([]byte, error) {
	info, ok := s.store.Get(num)
	if !ok {
		return nil, fmt.Errorf("make torrent of object %d: %w", num, cache.ErrNotFound)
	}
	switch {
	case !info.Complete:
		return nil, fmt.Errorf("%w: it is not complete", ErrNoTorrent)
	case !info.Public:
		return nil, fmt.Errorf("%w: it is not public", ErrNoTorrent)
	case info.Size == 0:
		return nil, fmt.Errorf("%w: it is empty", ErrNoTorrent)
	}
	if name = cleanName(name); name == "" {
		name = info.ID.String()
	}
	if err := s.running(ctx); err != nil {
		return nil, err
	}
	sha1s, err := s.hasher.hashes(info)
	if err != nil {
		return nil, err
	}
	layer, err := s.store.Layer(num)
	if err != nil {
		return nil, err
	}
	spec, err := makeSpec(info.ID, name, layer, sha1s)
	if err != nil {
		return nil, err
	}
	if _, err := s.add(spec, true, time.Now(), s.save); err != nil {
		return nil, err
	}
	s.trimMade()
	file := map[string]any{"info": bencode.Bytes(spec.Info)}
	if len(spec.Layers) > 0 {
		file["piece layers"] = spec.Layers
	}
	if s.cfg.BoxURL != "" {
		file["url-list"] = []string{s.cfg.BoxURL + "/o/" + info.ID.String()}
	}
	if len(s.cfg.Trackers) > 0 {
		file["announce"] = s.cfg.Trackers[0]
		var tiers [][]string
		for _, tr := range s.cfg.Trackers {
			tiers = append(tiers, []string{tr})
		}
		file["announce-list"] = tiers
	}
	return bencode.Marshal(file)
}

// makeSpec makes the torrent of one file.
func makeSpec(id content.ID, name string, layer *content.Layer, sha1s []byte) (*Spec, error) {
	length := pieceLength(id.Size)
	info, err := bencode.Marshal(map[string]any{
		"file tree": map[string]any{name: map[string]any{"": map[string]any{
			"length": id.Size, "pieces root": string(id.Root[:]),
		}}},
		"length": id.Size, "meta version": 2, "name": name, "piece length": length, "pieces": string(sha1s),
	})
	if err != nil {
		return nil, fmt.Errorf("encode torrent: %w", err)
	}
	spec := &Spec{Info: info}
	if id.Size > length {
		spec.Layers = map[string]string{string(id.Root[:]): pieceLayer(layer, length)}
	}
	if err := spec.setInfo(Limits{Files: 1, Bytes: id.Size}); err != nil {
		return nil, fmt.Errorf("make torrent: %w", err)
	}
	if err := spec.layout.checkLayers(spec.Layers); err != nil {
		return nil, fmt.Errorf("make torrent: %w", err)
	}
	return spec, nil
}

// pieceLayer folds the block hashes of an object into its piece layer.
func pieceLayer(layer *content.Layer, length int64) string {
	level := append([]content.Hash(nil), layer.Hashes...)
	for n := int64(content.BlockSize); n < length; n *= 2 {
		if len(level)%2 == 1 {
			level = append(level, content.Hash(metainfo.HashForPiecePad(n)))
		}
		for i := range len(level) / 2 {
			level[i] = sha256.Sum256(append(level[2*i][:], level[2*i+1][:]...))
		}
		level = level[:len(level)/2]
	}
	var text []byte
	for _, h := range level {
		text = append(text, h[:]...)
	}
	return string(text)
}

// trimMade leaves the made torrents that are too many.
func (s *Swarm) trimMade() {
	var oldest *share
	n := 0
	for _, sh := range s.list() {
		if sh.made {
			if n++; oldest == nil || sh.added.Before(oldest.added) {
				oldest = sh
			}
		}
	}
	if n > maxMade {
		if err := s.remove(oldest); err != nil {
			s.log.Warn("failed to leave a torrent", "title", oldest.title(), "err", err)
		}
	}
}

// hasher computes the SHA-1 hashes of objects' pieces, one object after the
// other and at half speed, and keeps them.
type hasher struct {
	store *cache.Store
	dir   string
	work  chan *hashJob

	// mu guards what follows.
	mu   sync.Mutex
	jobs map[content.ID]*hashJob
}

type hashJob struct {
	id   content.ID
	num  uint64
	done int64 // bytes; hasher.mu
	err  error // hasher.mu
}

func newHasher(store *cache.Store, dir string) *hasher {
	return &hasher{store: store, dir: filepath.Join(dir, hashesDir), work: make(chan *hashJob, 64), jobs: map[content.ID]*hashJob{}}
}

func (h *hasher) path(id content.ID) string { return filepath.Join(h.dir, id.String()) }

// hashes gives the concatenated piece hashes, or says how far they are.
func (h *hasher) hashes(info cache.Info) ([]byte, error) {
	if sums, ok := h.kept(info.ID); ok {
		return sums, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	job := h.jobs[info.ID]
	if job != nil && job.err != nil { // try again
		delete(h.jobs, info.ID)
		return nil, fmt.Errorf("hash %s: %w", info.Title, job.err)
	}
	if job == nil {
		job = &hashJob{id: info.ID, num: info.Num}
		select {
		case h.work <- job:
			h.jobs[info.ID] = job
		default: // enough wait already; asking again will do
		}
	}
	return nil, &HashingError{Done: job.done, Total: info.Size}
}

// kept reads the hashes from the directory. The file ends with a checksum.
func (h *hasher) kept(id content.ID) ([]byte, bool) {
	text, err := os.ReadFile(h.path(id))
	length := pieceLength(id.Size)
	n := int((id.Size + length - 1) / length * sha1.Size)
	if err != nil || len(text) != n+8 || fmt.Sprintf("%08x", crc32.ChecksumIEEE(text[:n])) != string(text[n:]) {
		return nil, false
	}
	return text[:n], true
}

func (h *hasher) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case job := <-h.work:
			err := h.hash(ctx, job)
			h.mu.Lock()
			if job.err = err; err == nil {
				delete(h.jobs, job.id)
			}
			h.mu.Unlock()
		}
	}
}

// hash reads an object through. After each piece it rests as long as the piece
// took: nobody waits for it who cannot come back.
func (h *hasher) hash(ctx context.Context, job *hashJob) error {
	r, err := h.store.Read(job.num)
	if err != nil {
		return err
	}
	defer r.Close()
	length := pieceLength(job.id.Size)
	buf := make([]byte, content.BlockSize)
	var sums []byte
	for off := int64(0); off < job.id.Size; off += length {
		began := time.Now()
		sum := sha1.New()
		for at := off; at < min(off+length, job.id.Size); at += int64(len(buf)) {
			part := buf[:min(int64(len(buf)), job.id.Size-at)]
			if n, err := r.ReadAt(part, at); n < len(part) {
				return fmt.Errorf("read piece: %w", err)
			}
			sum.Write(part)
		}
		sums = sum.Sum(sums)
		h.mu.Lock()
		job.done = min(off+length, job.id.Size)
		h.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Since(began)):
		}
	}
	sums = append(sums, fmt.Appendf(nil, "%08x", crc32.ChecksumIEEE(sums))...)
	return writeFile(h.path(job.id), sums)
}

package digest

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// A file is named after the identity of its object and holds the digest of the
// whole, those of the pieces, and the CRC-32C of all that and of the name.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode makes the content of an object's file.
func encode(id content.ID, sums *Sums) []byte {
	text := append([]byte(nil), sums.Whole[:]...)
	for _, h := range sums.Pieces {
		text = append(text, h[:]...)
	}
	return binary.BigEndian.AppendUint32(text, check(id, text))
}

// decode reads what encode made; nil if it is not that.
func decode(id content.ID, text []byte) *Sums {
	length := PieceLength(id.Size)
	n := id.Size / length
	if id.Size%length > 0 {
		n++
	}
	const size = int64(len(content.Hash{}))
	if id.Size <= 0 || int64(len(text)) != (n+1)*size+4 {
		return nil
	}
	text, crc := text[:(n+1)*size], binary.BigEndian.Uint32(text[(n+1)*size:])
	if crc != check(id, text) {
		return nil
	}
	sums := &Sums{Whole: content.Hash(text[:size]), PieceLength: length, Pieces: make([]content.Hash, n)}
	for i := range sums.Pieces {
		sums.Pieces[i] = content.Hash(text[size*int64(i+1):])
	}
	return sums
}

func check(id content.ID, text []byte) uint32 {
	return crc32.Update(crc32.Checksum(text, castagnoli), castagnoli, []byte(id.String()))
}

// maxFile is the longest file that is read: of 16 TiB.
const maxFile = 32<<20 + 1<<10

// load reads an object's digests from the directory; nil if they are not there.
func (b *Book) load(id content.ID) *Sums {
	if b.dir == "" {
		return nil
	}
	path := filepath.Join(b.dir, id.String())
	if st, err := os.Stat(path); err != nil || st.Size() > maxFile {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return decode(id, text)
}

// loadAll learns the digests of the wholes, newest first, and removes files that
// are too many.
func (b *Book) loadAll(ctx context.Context) {
	files := b.list()
	for i, f := range files {
		if ctx.Err() != nil {
			return
		}
		if i >= maxFiles {
			_ = os.Remove(filepath.Join(b.dir, f.name)) // it is only old
			continue
		}
		id, err := content.ParseID(f.name)
		if err != nil {
			continue
		}
		if sums := b.load(id); sums != nil {
			b.mu.Lock()
			if len(b.whole) < maxWhole {
				b.whole[id] = sums.Whole
			}
			b.mu.Unlock()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.files = min(len(files), maxFiles)
}

// file is one of the directory.
type file struct {
	name string
	at   time.Time
}

// list gives the files, newest first.
func (b *Book) list() (files []file) {
	if b.dir == "" {
		return nil
	}
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		var st fs.FileInfo
		if st, err = e.Info(); err == nil && st.Mode().IsRegular() {
			files = append(files, file{e.Name(), st.ModTime()})
		}
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.name, b.name)) })
	return files
}

// save writes an object's file. It need not be durable: what is lost is computed
// again.
func (b *Book) save(id content.ID, sums *Sums) error {
	if b.dir == "" {
		return nil
	}
	b.mu.Lock()
	b.files++
	full := b.files > maxFiles
	b.mu.Unlock()
	if full {
		b.trim()
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of digests: %w", err)
	}
	path := filepath.Join(b.dir, id.String())
	if err := os.WriteFile(path+".new", encode(id, sums), 0o600); err != nil {
		return fmt.Errorf("write digests: %w", err)
	}
	return os.Rename(path+".new", path)
}

// trim removes the oldest eighth.
func (b *Book) trim() {
	files := b.list()
	keep := min(len(files), maxFiles-maxFiles/8)
	for _, f := range files[keep:] {
		_ = os.Remove(filepath.Join(b.dir, f.name)) // it is only old
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.files = keep
}

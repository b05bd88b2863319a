package actors

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
)

// Torrent is a torrent of one file.
type Torrent struct {
	// File is the .torrent, Name the file that it describes.
	File, Name string
	// InfohashV1 is the SHA-1 of the info dictionary.
	InfohashV1 [20]byte
	// Sum is the SHA-256 of the content in hexadecimal.
	Sum string
}

// MakeTorrent writes a hybrid (v1 and v2) torrent of a file with pieces of
// 1 MiB. It shares no code with the torrents that the box makes.
func MakeTorrent(path, torrent, announce string) (Torrent, error) {
	f, err := os.Open(path)
	if err != nil {
		return Torrent{}, fmt.Errorf("make torrent: %w", err)
	}
	defer f.Close()
	var pieces, layer []byte
	var leaves []content.Hash
	var size int64
	sum := sha256.New()
	for piece := make([]byte, content.BlockSize); ; {
		n, err := io.ReadFull(f, piece)
		if n == 0 {
			break
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			return Torrent{}, fmt.Errorf("make torrent: %w", err)
		}
		size += int64(n)
		sum.Write(piece[:n])
		h := sha1.Sum(piece[:n])
		pieces = append(pieces, h[:]...)
		own, err := content.HashLeaves(nil, bytes.NewReader(piece[:n]))
		if err != nil {
			return Torrent{}, fmt.Errorf("make torrent: %w", err)
		}
		leaves = append(leaves, own...)
	}
	if size <= content.BlockSize {
		return Torrent{}, fmt.Errorf("make torrent: %s has %d bytes; it takes more than a piece", path, size)
	}
	root := content.Root(leaves)
	for _, h := range content.NewLayer(size, leaves).Hashes {
		layer = append(layer, h[:]...)
	}
	name := filepath.Base(path)
	info := dict{
		"file tree":    dict{name: dict{"": dict{"length": size, "pieces root": root[:]}}},
		"length":       size,
		"meta version": int64(2),
		"name":         []byte(name),
		"piece length": int64(content.BlockSize),
		"pieces":       pieces,
	}
	t := Torrent{File: torrent, Name: name, InfohashV1: sha1.Sum(bencode(nil, info)), Sum: hex.EncodeToString(sum.Sum(nil))}
	whole := bencode(nil, dict{"announce": []byte(announce), "info": info, "piece layers": dict{string(root[:]): layer}})
	if err := os.WriteFile(torrent, whole, 0o644); err != nil {
		return Torrent{}, fmt.Errorf("make torrent: %w", err)
	}
	return t, nil
}

// dict is a bencoded dictionary of byte strings, int64 and dict.
type dict map[string]any

// bencode appends a value (BEP 3): keys in order.
func bencode(dst []byte, v any) []byte {
	switch v := v.(type) {
	case int64:
		return fmt.Appendf(dst, "i%de", v)
	case []byte:
		return append(fmt.Appendf(dst, "%d:", len(v)), v...)
	case dict:
		dst = append(dst, 'd')
		for _, key := range slices.Sorted(maps.Keys(v)) {
			dst = bencode(bencode(dst, []byte(key)), v[key])
		}
		return append(dst, 'e')
	default:
		panic(fmt.Sprintf("bencode: %T", v)) // a mistake of the caller's code
	}
}

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
	// Name is the file that it describes.
	Name string
	// Hybrid is the .torrent with v1 and v2, V1 one with v1 alone: aria2 1.36
	// drops the empty key of a file tree, and so looks for a hybrid torrent
	// under an infohash that nobody else has.
	Hybrid, V1 TorrentFile
	// Sum is the SHA-256 of the content in hexadecimal.
	Sum string
}

// TorrentFile is a .torrent.
type TorrentFile struct {
	Path string
	// Infohash is the SHA-1 of the info dictionary.
	Infohash [20]byte
}

// MakeTorrent writes two torrents of a file into dir, with pieces of 1 MiB. It
// shares no code with the torrents that the box makes.
func MakeTorrent(path, dir, announce string) (Torrent, error) {
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
	t := Torrent{Name: name, Sum: hex.EncodeToString(sum.Sum(nil))}
	info := dict{"length": size, "name": []byte(name), "piece length": int64(content.BlockSize), "pieces": pieces}
	if t.V1, err = writeTorrent(filepath.Join(dir, name+".v1.torrent"), dict{"announce": []byte(announce), "info": info}); err != nil {
		return t, err
	}
	info["meta version"] = int64(2)
	info["file tree"] = dict{name: dict{"": dict{"length": size, "pieces root": root[:]}}}
	t.Hybrid, err = writeTorrent(filepath.Join(dir, name+".torrent"), dict{
		"announce": []byte(announce), "info": info, "piece layers": dict{string(root[:]): layer},
	})
	return t, err
}

func writeTorrent(path string, metainfo dict) (TorrentFile, error) {
	if err := os.WriteFile(path, bencode(nil, metainfo), 0o644); err != nil {
		return TorrentFile{}, fmt.Errorf("make torrent: %w", err)
	}
	return TorrentFile{Path: path, Infohash: sha1.Sum(bencode(nil, metainfo["info"]))}, nil
}

// dict is a bencoded dictionary of byte strings, int64, list and dict.
type dict map[string]any

// list is a bencoded list of the same.
type list []any

// bencode appends a value (BEP 3): keys in order.
func bencode(dst []byte, v any) []byte {
	switch v := v.(type) {
	case int64:
		return fmt.Appendf(dst, "i%de", v)
	case []byte:
		return append(fmt.Appendf(dst, "%d:", len(v)), v...)
	case list:
		dst = append(dst, 'l')
		for _, item := range v {
			dst = bencode(dst, item)
		}
		return append(dst, 'e')
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

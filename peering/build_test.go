package peering

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"

	"github.com/cistern-edge/cistern/cache/content"
)

// set is the files of a torrent by their paths.
type set map[string][]byte

func (s set) paths() []string {
	var all []string
	for p := range s {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// mode is the version of a torrent.
type mode struct{ v1, v2 bool }

var modes = map[string]mode{"v1": {v1: true}, "v2": {v2: true}, "hybrid": {v1: true, v2: true}}

// build makes the .torrent file of a set.
func build(t *testing.T, name string, files set, length int64, m mode) ([]byte, *metainfo.MetaInfo) {
	t.Helper()
	single := len(files) == 1 && files[name] != nil
	info := map[string]any{"name": name, "piece length": length}
	layers := map[string]string{}
	tree := map[string]any{}
	var v1 []any
	var flat []byte
	for i, path := range files.paths() {
		data := files[path]
		if m.v2 {
			leaves, err := content.HashLeaves(nil, bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			file := map[string]any{"length": int64(len(data))}
			if len(data) > 0 {
				root := content.Root(leaves)
				file["pieces root"] = string(root[:])
				if int64(len(data)) > length {
					layers[string(root[:])] = layerOf(leaves, length)
				}
			}
			dir := tree
			elements := strings.Split(path, "/")
			for _, e := range elements[:len(elements)-1] {
				if dir[e] == nil {
					dir[e] = map[string]any{}
				}
				dir = dir[e].(map[string]any)
			}
			dir[elements[len(elements)-1]] = map[string]any{"": file}
		}
		v1 = append(v1, map[string]any{"length": int64(len(data)), "path": strings.Split(path, "/")})
		flat = append(flat, data...)
		if pad := (length - int64(len(data))%length) % length; m.v2 && pad > 0 && i < len(files)-1 {
			v1 = append(v1, map[string]any{"attr": "p", "length": pad, "path": []string{".pad", fmt.Sprint(i)}})
			flat = append(flat, make([]byte, pad)...)
		}
	}
	if m.v1 {
		var pieces []byte
		for off := int64(0); off < int64(len(flat)); off += length {
			sum := sha1.Sum(flat[off:min(off+length, int64(len(flat)))])
			pieces = append(pieces, sum[:]...)
		}
		info["pieces"] = string(pieces)
		if single {
			info["length"] = int64(len(flat))
		} else {
			info["files"] = v1
		}
	}
	if m.v2 {
		info["meta version"] = 2
		info["file tree"] = tree
	}
	file := map[string]any{"info": info}
	if len(layers) > 0 {
		file["piece layers"] = layers
	}
	text, err := bencode.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	mi, err := metainfo.Load(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return text, mi
}

// layerOf combines leaves into the layer of a piece length.
func layerOf(leaves []content.Hash, length int64) string {
	n := int(length / content.LeafSize)
	var text []byte
	for len(leaves) > 0 {
		part := append([]content.Hash(nil), leaves[:min(n, len(leaves))]...)
		leaves = leaves[len(part):]
		for len(part) < n {
			part = append(part, content.Hash{})
		}
		root := content.Root(part)
		text = append(text, root[:]...)
	}
	return string(text)
}

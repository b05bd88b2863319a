package peering

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/anacrolix/torrent/merkle"
	"github.com/anacrolix/torrent/metainfo"

	"github.com/cistern-edge/cistern/cache/content"
)

// Bounds on the pieces of a torrent.
const (
	minPieceLength = 1 << 10
	maxPieceLength = 128 << 20
	maxPieces      = 1 << 20
	maxPathBytes   = 1024
)

// layout says where the files of a torrent lie in its pieces. It is a pure
// function of the info dictionary and does not change.
type layout struct {
	name        string
	pieceLength int64
	pieces      int
	total       int64 // bytes of files, without padding
	private     bool
	v2          bool // files begin at pieces and have pieces roots
	dir         bool // the files lie in a directory called name
	files       []part
}

// part is one file within a torrent.
type part struct {
	path string // clean, unique, with slashes
	off  int64  // in the torrent
	size int64
	pad  bool // zeros that align the next file (BEP 47); never stored
	root content.Hash
}

func (p part) end() int64 { return p.off + p.size }

// id is the identity that the torrent promises for the file; zero if it does
// not (v1).
func (p part) id() content.ID { return content.ID{Root: p.root, Size: p.sizeIfPromised()} }

func (p part) sizeIfPromised() int64 {
	if p.root == (content.Hash{}) {
		return 0
	}
	return p.size
}

// newLayout checks an info dictionary and lays it out. Nothing is allocated for
// pieces before their number has been checked.
func newLayout(info *metainfo.Info, limits Limits) (*layout, error) {
	if info.MetaVersion != 0 && info.MetaVersion != 1 && info.MetaVersion != 2 {
		return nil, fmt.Errorf("meta version is %d; 1 and 2 are known", info.MetaVersion)
	}
	if info.PieceLength < minPieceLength || info.PieceLength > maxPieceLength {
		return nil, fmt.Errorf("piece length is %d, not between %d and %d", info.PieceLength, minPieceLength, maxPieceLength)
	}
	l := &layout{
		name: cleanName(info.BestName()), pieceLength: info.PieceLength,
		private: info.Private != nil && *info.Private, v2: info.HasV2(), dir: isDir(info),
	}
	if l.name == "" {
		return nil, fmt.Errorf("name %q is empty or not a name", clip(info.BestName()))
	}
	if l.v2 {
		if err := checkV2(info); err != nil {
			return nil, err
		}
	}
	if len(info.Pieces)%20 != 0 {
		return nil, fmt.Errorf("pieces has %d bytes, not a multiple of 20", len(info.Pieces))
	}
	if err := l.place(info, limits); err != nil {
		return nil, err
	}
	return l, l.checkPieces(info)
}

// isDir says whether the files lie in a directory of the torrent's name: a file
// tree has a directory for its root in any case.
func isDir(info *metainfo.Info) bool {
	if info.HasV1() {
		return info.Length == 0 && len(info.Files) > 0
	}
	only, ok := info.FileTree.Dir[info.BestName()]
	return len(info.FileTree.Dir) != 1 || !ok || only.IsDir()
}

// checkV2 checks what BEP 52 asks of an info dictionary before the library
// walks it: it panics on what is wrong.
func checkV2(info *metainfo.Info) error {
	if info.PieceLength < content.LeafSize || info.PieceLength&(info.PieceLength-1) != 0 {
		return fmt.Errorf("piece length %d of a v2 torrent is not a power of two of at least %d", info.PieceLength, content.LeafSize)
	}
	if err := info.FileTree.Validate(); err != nil {
		return fmt.Errorf("file tree: %s", clip(err.Error()))
	}
	if info.FileTree.NumEntries() == 0 {
		return errors.New("file tree is empty")
	}
	return nil
}

// place gives each file its path and place.
func (l *layout) place(info *metainfo.Info, limits Limits) error {
	if n := len(info.Files); n > limits.Files && !l.v2 {
		return fmt.Errorf("torrent has %d files, at most %d are taken", n, limits.Files)
	}
	taken := map[string]bool{}
	var off, size int64
	for f := range info.UpvertedFilesIter() {
		if len(l.files) >= limits.Files {
			return fmt.Errorf("torrent has more than %d files", limits.Files)
		}
		if f.Length < 0 {
			return fmt.Errorf("file %q has the length %d", clip(strings.Join(f.BestPath(), "/")), f.Length)
		}
		if size += f.Length; f.Length > limits.Bytes || size > limits.Bytes {
			return fmt.Errorf("torrent has more than %d bytes", limits.Bytes)
		}
		p := part{off: off, size: f.Length, pad: strings.Contains(f.Attr, "p")}
		if f.PiecesRoot.Ok {
			p.root = content.Hash(f.PiecesRoot.Value)
		}
		off += f.Length
		if l.v2 {
			off = (off + l.pieceLength - 1) / l.pieceLength * l.pieceLength
		}
		if !p.pad {
			var err error
			if p.path, err = cleanPath(f.BestPath(), l.name, info.IsDir()); err != nil {
				return err
			}
			if taken[p.path] {
				return fmt.Errorf("two files have the path %q", clip(p.path))
			}
			taken[p.path] = true
			l.total += p.size
		}
		l.files = append(l.files, p)
	}
	if len(taken) == 0 {
		return errors.New("torrent has no files")
	}
	return nil
}

// checkPieces checks that the pieces cover the files and are not too many.
func (l *layout) checkPieces(info *metainfo.Info) error {
	var n, end int64
	for _, f := range l.files {
		if f.size > 0 {
			end = f.end()
			if l.v2 {
				n += (f.size + l.pieceLength - 1) / l.pieceLength
			}
		}
	}
	if !l.v2 {
		n = (end + l.pieceLength - 1) / l.pieceLength
	}
	if n > maxPieces {
		return fmt.Errorf("torrent has %d pieces, at most %d are taken", n, maxPieces)
	}
	if hashes := int64(len(info.Pieces) / 20); info.HasV1() && hashes != n {
		return fmt.Errorf("torrent has %d piece hashes for %d pieces", hashes, n)
	}
	if info.HasV1() && l.v2 {
		if err := checkHybrid(info, l); err != nil {
			return err
		}
	}
	l.pieces = int(n)
	return nil
}

// checkHybrid checks that both versions of a hybrid torrent describe the same
// files.
func checkHybrid(info *metainfo.Info, l *layout) error {
	var sizes []int64
	for f := range info.UpvertedV1Files() {
		if f.Length < 0 {
			return fmt.Errorf("a file of the v1 list has the length %d", f.Length)
		}
		if !strings.Contains(f.Attr, "p") {
			sizes = append(sizes, f.Length)
		}
	}
	own := make([]int64, len(l.files))
	for i, f := range l.files {
		own[i] = f.size
	}
	slices.Sort(sizes)
	slices.Sort(own)
	if !slices.Equal(sizes, own) {
		return errors.New("the v1 and v2 parts of the info describe different files")
	}
	return nil
}

// checkLayers checks the piece layers (BEP 52) of a .torrent file.
func (l *layout) checkLayers(layers map[string]string) error {
	if !l.v2 {
		return nil
	}
	pad := metainfo.HashForPiecePad(l.pieceLength)
	for _, f := range l.files {
		if f.size <= l.pieceLength {
			continue
		}
		layer, ok := layers[string(f.root[:])]
		if !ok {
			return fmt.Errorf("file %q has no piece layer", clip(f.path))
		}
		if want := (f.size + l.pieceLength - 1) / l.pieceLength * 32; int64(len(layer)) != want {
			return fmt.Errorf("piece layer of file %q has %d bytes, not %d", clip(f.path), len(layer), want)
		}
		hashes, err := merkle.CompactLayerToSliceHashes(layer)
		if err != nil {
			return fmt.Errorf("piece layer of file %q: %w", clip(f.path), err)
		}
		if merkle.RootWithPadHash(hashes, pad) != f.root {
			return fmt.Errorf("piece layer of file %q does not add up to its pieces root", clip(f.path))
		}
	}
	return nil
}

// hasEmpty says whether a file has no bytes.
func (l *layout) hasEmpty() bool {
	return slices.ContainsFunc(l.files, func(p part) bool { return p.size == 0 })
}

// span is bytes of one file as part of a range of the torrent.
type span struct {
	file int
	r    content.Range // in the file
	at   int64         // in the range
}

// spans lists the files that n bytes of the torrent from off lie in, in order.
// Between files of a v2 torrent lies nothing.
func (l *layout) spans(off, n int64) []span {
	first := sort.Search(len(l.files), func(i int) bool { return l.files[i].end() > off })
	var all []span
	for i := first; i < len(l.files) && l.files[i].off < off+n; i++ {
		f := l.files[i]
		r := content.Range{Off: max(off, f.off), End: min(off+n, f.end())}
		if r.Len() > 0 {
			all = append(all, span{file: i, r: content.Range{Off: r.Off - f.off, End: r.End - f.off}, at: r.Off - off})
		}
	}
	return all
}

// piece lists the files that piece i lies in.
func (l *layout) piece(i int) []span { return l.spans(int64(i)*l.pieceLength, l.pieceLength) }

// pieceEnd is where the last byte of piece i lies that belongs to a file.
func (l *layout) pieceEnd(i int) int64 {
	end := int64(i) * l.pieceLength
	for _, s := range l.piece(i) {
		if f := l.files[s.file]; !f.pad {
			end = f.off + s.r.End
		}
	}
	return end
}

// pieceRange is the whole of piece i.
func (l *layout) pieceRange(i int) content.Range {
	return content.Range{Off: int64(i) * l.pieceLength, End: int64(i+1) * l.pieceLength}
}

// pieceBytes is how many bytes of files piece i has.
func (l *layout) pieceBytes(i int) (n int64) {
	for _, s := range l.piece(i) {
		if !l.files[s.file].pad {
			n += s.r.Len()
		}
	}
	return n
}

// cleanPath makes the path of a file within its torrent. What could lead out of
// it is refused, not repaired.
func cleanPath(elements []string, name string, inDir bool) (string, error) {
	if !inDir || len(elements) == 0 {
		return name, nil
	}
	clean := make([]string, len(elements))
	for i, e := range elements {
		if clean[i] = cleanName(e); clean[i] == "" {
			return "", fmt.Errorf("path %q leads out of the torrent or has an empty element", clip(strings.Join(elements, "/")))
		}
	}
	path := strings.Join(clean, "/")
	if len(path) > maxPathBytes {
		return "", fmt.Errorf("path %q has %d bytes, at most %d are taken", clip(path), len(path), maxPathBytes)
	}
	return path, nil
}

// cleanName makes one element of a path safe to show and to put into a URL. It
// returns "" for what is no name: empty, dots, with a separator, or too long.
func cleanName(s string) string {
	if s == "" || s == "." || s == ".." || len(s) > 255 || strings.ContainsAny(s, "/\\\x00") {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, s)
}

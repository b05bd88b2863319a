package content_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cistern-edge/cistern/cache/content"
)

// naiveRoot builds the tree of BEP 52 by recursion, on its own.
func naiveRoot(data []byte) content.Hash {
	if len(data) == 0 {
		return content.Hash{}
	}
	width := 1
	for width*16384 < len(data) {
		width *= 2
	}
	return naiveNode(data, 0, width)
}

// naiveNode hashes width leaves from the leaf at first on.
func naiveNode(data []byte, first, width int) content.Hash {
	if width == 1 {
		if first*16384 >= len(data) {
			return content.Hash{}
		}
		return sha256.Sum256(data[first*16384 : min((first+1)*16384, len(data))])
	}
	left := naiveNode(data, first, width/2)
	right := naiveNode(data, first+width/2, width/2)
	return sha256.Sum256(append(left[:], right[:]...))
}

// noise makes n bytes that are the same in every run.
func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // never fails
	return data
}

func TestTreeAgainstNaive(t *testing.T) {
	const mib = 1 << 20
	for _, n := range []int{
		0, 1, 16383, 16384, 16385, 2 * 16384, 3*16384 - 1, mib - 1, mib, mib + 1, 2 * mib, 3*mib + 5,
		4*mib + 16384, 130 * 16384, 130*16384 + 1, 9*mib + 17,
	} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			data, size := noise(n), int64(n)
			want := naiveRoot(data)
			leaves, err := content.HashLeaves(nil, bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(leaves)) != content.Leaves(size) {
				t.Errorf("%d leaves, want %d", len(leaves), content.Leaves(size))
			}
			if got := content.Root(leaves); got != want {
				t.Errorf("root is %s, want %s", got, want)
			}
			layer := content.NewLayer(size, leaves)
			if layer.Root() != want {
				t.Errorf("layer adds up to %s, want %s", layer.Root(), want)
			}
			if err := layer.Check(content.ID{Root: want, Size: size}); err != nil {
				t.Error(err)
			}
			for i := range content.Blocks(size) {
				r := content.Block(i, size)
				want := layer.Hashes[i]
				if size > content.BlockSize && naiveNode(data, int(i)*content.LeavesPerBlock, content.LeavesPerBlock) != want {
					t.Errorf("layer has another hash for block %d than the naive tree", i)
				}
				part, err := content.HashLeaves(nil, bytes.NewReader(data[r.Off:r.End]))
				if err != nil || content.BlockHash(part, size) != want {
					t.Errorf("block %d hashes to something else: %v", i, err)
				}
			}
		})
	}
}

// TestGoldenRoot holds the format itself: stored identities depend on it. The
// roots were made by a program in another language.
func TestGoldenRoot(t *testing.T) {
	for _, c := range []struct {
		data, root string
	}{
		{"a", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}, // of one leaf: its plain SHA-256
		{strings.Repeat("cistern ", 5000), "9e0a087dc01921a0715fc3f90b6bd0f2cabcf1e4d17dbe2119e07cd019a718ea"},
		{strings.Repeat("cistern ", 400_000), "1665c54a525ad5f1235f9cb8a65306028ee41da251f843b4f33c391c9d5f4b1f"},
	} {
		leaves, err := content.HashLeaves(nil, strings.NewReader(c.data))
		if err != nil {
			t.Fatal(err)
		}
		if got := content.Root(leaves).String(); got != c.root {
			t.Errorf("root of %d bytes is %s, want %s", len(c.data), got, c.root)
		}
	}
}

func TestLayerCheckRefusesMalformed(t *testing.T) {
	data := noise(3<<20 + 5)
	size := int64(len(data))
	leaves, _ := content.HashLeaves(nil, bytes.NewReader(data))
	good := content.NewLayer(size, leaves)
	id := content.ID{Root: good.Root(), Size: size}
	with := func(change func(l *content.Layer)) *content.Layer {
		l := &content.Layer{Size: good.Size, Hashes: append([]content.Hash(nil), good.Hashes...)}
		change(l)
		return l
	}
	for name, c := range map[string]struct {
		layer *content.Layer
		id    content.ID
	}{
		"no hashes":         {with(func(l *content.Layer) { l.Hashes = nil }), id},
		"one short":         {with(func(l *content.Layer) { l.Hashes = l.Hashes[1:] }), id},
		"one more":          {with(func(l *content.Layer) { l.Hashes = append(l.Hashes, content.Hash{}) }), id},
		"other size":        {with(func(l *content.Layer) { l.Size++ }), id},
		"flipped bit":       {with(func(l *content.Layer) { l.Hashes[2][31] ^= 1 }), id},
		"swapped":           {with(func(l *content.Layer) { l.Hashes[0], l.Hashes[1] = l.Hashes[1], l.Hashes[0] }), id},
		"other root":        {good, content.ID{Root: content.Hash{1}, Size: size}},
		"negative size":     {&content.Layer{Size: -1}, content.ID{Size: -1}},
		"huge size":         {&content.Layer{Size: math.MaxInt64}, content.ID{Size: math.MaxInt64}},
		"empty with hashes": {&content.Layer{Hashes: []content.Hash{{}}}, content.ID{}},
	} {
		if err := c.layer.Check(c.id); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := with(func(l *content.Layer) { l.Hashes[2][31] ^= 1 }).Check(id); !errors.Is(err, content.ErrBadPiece) {
		t.Errorf("a wrong hash is not told as ErrBadPiece: %v", err)
	}
}

func TestPartsOfSizes(t *testing.T) {
	for _, c := range []struct{ size, leaves, blocks int64 }{
		{-1, 0, 0},
		{0, 0, 0},
		{1, 1, 1},
		{16384, 1, 1},
		{16385, 2, 1},
		{1 << 20, 64, 1},
		{1<<20 + 1, 65, 2},
		{math.MaxInt64, 1 << 49, 1 << 43},
	} {
		if l, b := content.Leaves(c.size), content.Blocks(c.size); l != c.leaves || b != c.blocks {
			t.Errorf("%d bytes: %d leaves and %d blocks, want %d and %d", c.size, l, b, c.leaves, c.blocks)
		}
	}
	last := content.Block(1<<43-1, math.MaxInt64)
	if last.End != math.MaxInt64 || last.Len() != content.BlockSize-1 {
		t.Errorf("last block of the largest file is %v", last)
	}
	if r := content.Block(2, 5); r.Len() != 0 {
		t.Errorf("a block beyond the end is %v, want an empty one", r)
	}
}

func TestHashLeavesTellsReadErrors(t *testing.T) {
	if _, err := content.HashLeaves(nil, iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
	leaves, err := content.HashLeaves(nil, iotest.OneByteReader(bytes.NewReader(noise(20_000))))
	if err != nil || content.Root(leaves) != naiveRoot(noise(20_000)) {
		t.Errorf("bytes that trickle in hash to something else: %v", err)
	}
}

func TestTrustIsOrdered(t *testing.T) {
	if !(content.TrustTransport < content.TrustWhole && content.TrustWhole < content.TrustPieces) {
		t.Error("trust does not grow")
	}
	for trust, want := range map[content.Trust]string{content.TrustTransport: "transport", content.TrustWhole: "whole", content.TrustPieces: "pieces", 77: "transport"} {
		if trust.String() != want {
			t.Errorf("trust %d is called %q", int(trust), trust)
		}
	}
}

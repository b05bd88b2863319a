package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cistern-edge/cistern/cache/content"
)

// A blob is two files: the body, sparse until it is whole, and the sidecar
// <body>.tree. The sidecar is a header of headerSize bytes (magic, number, size
// or -1, checksum) and a slot for each block: checksum, then the hashes of the
// block's leaves. A slot whose checksum matches says that the block is durable;
// it is written only after the body has been synced.
type blob struct {
	num  uint64
	body *os.File
	tree *os.File
}

const (
	treeMagic  = "CISTREE1"
	headerSize = 32
	slotSize   = 8 + content.LeavesPerBlock*32
)

func blobPath(dir string, num uint64) string {
	return filepath.Join(dir, "blobs", fmt.Sprintf("%02x", byte(num)), fmt.Sprintf("%016x", num))
}

func createBlob(dir string, num uint64, size int64) (*blob, error) {
	path := blobPath(dir, num)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make blob: %w", err)
	}
	b, err := openFiles(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make blob: %w", asFull(err)), removeBlob(dir, num))
	}
	b.num = num
	if err := b.setSize(size); err != nil {
		b.close()
		return nil, errors.Join(err, removeBlob(dir, num))
	}
	return b, nil
}

func openBlob(dir string, num uint64) (*blob, error) {
	b, err := openFiles(blobPath(dir, num), os.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	b.num = num
	return b, nil
}

func openFiles(path string, flag int) (*blob, error) {
	body, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	tree, err := os.OpenFile(path+".tree", flag, 0o600)
	if err != nil {
		body.Close()
		return nil, err
	}
	return &blob{body: body, tree: tree}, nil
}

func (b *blob) close() error { return errors.Join(b.body.Close(), b.tree.Close()) }

func removeBlob(dir string, num uint64) error {
	path := blobPath(dir, num)
	for _, p := range []string{path, path + ".tree"} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove blob: %w", err)
		}
	}
	return nil
}

// blobFiles counts the files of each blob on disk, whether the index knows it or
// not: a whole blob has two. It runs once, at the start.
func blobFiles(dir string) map[uint64]int {
	files := map[uint64]int{}
	paths, _ := filepath.Glob(filepath.Join(dir, "blobs", "??", "*")) // the pattern is sound
	for _, p := range paths {
		num, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(p), ".tree"), 16, 64)
		if err == nil && strings.TrimSuffix(p, ".tree") == blobPath(dir, num) {
			files[num]++
		}
	}
	return files
}

// setSize writes the header and, once the size is known, reserves the room for
// the body and cuts off what was written beyond its end.
func (b *blob) setSize(size int64) error {
	h := append([]byte(treeMagic), make([]byte, 0, headerSize)...)
	h = binary.BigEndian.AppendUint64(h, b.num)
	h = binary.BigEndian.AppendUint64(h, uint64(size))
	h = binary.BigEndian.AppendUint32(h, crc32.Checksum(h, castagnoli))
	h = append(h, make([]byte, headerSize-len(h))...)
	if _, err := b.tree.WriteAt(h, 0); err != nil {
		return fmt.Errorf("write blob header: %w", err)
	}
	if size < 0 {
		return nil
	}
	if err := allocate(b.body, size); err != nil {
		return fmt.Errorf("reserve %d bytes: %w", size, err)
	}
	if err := b.body.Truncate(size); err != nil {
		return fmt.Errorf("set length to %d bytes: %w", size, err)
	}
	return nil
}

// header reads the size back and checks that the sidecar belongs to the blob.
func (b *blob) header() (size int64, err error) {
	var h [headerSize]byte
	if _, err := b.tree.ReadAt(h[:], 0); err != nil {
		return 0, fmt.Errorf("read blob header: %w", err)
	}
	sum := binary.BigEndian.Uint32(h[24:])
	if string(h[:8]) != treeMagic || sum != crc32.Checksum(h[:24], castagnoli) || binary.BigEndian.Uint64(h[8:]) != b.num {
		return 0, fmt.Errorf("sidecar of blob %d is damaged or of another format", b.num)
	}
	return int64(binary.BigEndian.Uint64(h[16:])), nil
}

// putSlot says that block i is durable and what its leaves hash to.
func (b *blob) putSlot(i int64, leaves []content.Hash) error {
	slot := make([]byte, 8, slotSize)
	binary.BigEndian.PutUint32(slot[4:], uint32(len(leaves)))
	for _, h := range leaves {
		slot = append(slot, h[:]...)
	}
	binary.BigEndian.PutUint32(slot, slotSum(i, slot[4:]))
	if _, err := b.tree.WriteAt(slot, headerSize+i*slotSize); err != nil {
		return fmt.Errorf("write tree: %w", asFull(err))
	}
	return nil
}

// slotSum covers the block's number too, so that a slot in the wrong place does
// not pass.
func slotSum(i int64, rest []byte) uint32 {
	return crc32.Update(crc32.Checksum(binary.BigEndian.AppendUint64(nil, uint64(i)), castagnoli), castagnoli, rest)
}

// slot reads the leaf hashes of block i; nil if the block is not durable.
func (b *blob) slot(i int64) ([]content.Hash, error) {
	var slot [slotSize]byte
	n, err := b.tree.ReadAt(slot[:], headerSize+i*slotSize)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	if n < 8 {
		return nil, nil
	}
	count := int(binary.BigEndian.Uint32(slot[4:]))
	if count < 1 || count > content.LeavesPerBlock || 8+32*count > n ||
		binary.BigEndian.Uint32(slot[:]) != slotSum(i, slot[4:8+32*count]) {
		return nil, nil
	}
	leaves := make([]content.Hash, count)
	r := bytes.NewReader(slot[8:])
	for j := range leaves {
		_, _ = io.ReadFull(r, leaves[j][:]) // in memory, and long enough
	}
	return leaves, nil
}

// resume lists the blocks that are durable; a whole sidecar is read once, when a
// fill goes on. What the body's length or the layer belies is wiped, so that no
// old slot can vouch for new bytes; a sidecar with a damaged header is all wiped.
func (b *blob) resume(size int64, layer *content.Layer) (content.Ranges, error) {
	known, err := b.header()
	if err != nil || known >= 0 && size >= 0 && known != size {
		if err := b.tree.Truncate(0); err != nil {
			return nil, fmt.Errorf("wipe tree: %w", err)
		}
		return nil, errors.Join(b.setSize(size), syncData(b.tree))
	}
	// A crash between index and sidecar leaves one of them without the size.
	have, err := b.durable(max(size, known), layer)
	if err == nil && known < size {
		err = b.setSize(size)
	}
	return have, err
}

// durable lists the blocks of an object of size bytes whose slots hold.
func (b *blob) durable(size int64, layer *content.Layer) (content.Ranges, error) {
	tree, err := b.tree.Stat()
	if err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	body, err := b.body.Stat()
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	var have content.Ranges
	wiped := false
	for i := range (tree.Size() - headerSize + slotSize - 1) / slotSize {
		leaves, err := b.slot(i)
		if err != nil {
			return nil, err
		}
		if leaves == nil {
			continue
		}
		r := content.Block(i, blockEnd(size))
		if r.End <= body.Size() && content.Leaves(r.Len()) == int64(len(leaves)) &&
			(layer == nil || content.BlockHash(leaves, size) == layer.Hashes[i]) {
			have.Add(r)
			continue
		}
		wiped = true
		if _, err := b.tree.WriteAt(make([]byte, 8), headerSize+i*slotSize); err != nil {
			return nil, fmt.Errorf("wipe block %d: %w", i, err)
		}
	}
	if wiped {
		err = syncData(b.tree)
	}
	return have, err
}

// layer makes the proof of a whole blob from its sidecar.
func (b *blob) layer(size int64) (*content.Layer, error) {
	l := &content.Layer{Size: size}
	for i := range content.Blocks(size) {
		leaves, err := b.slot(i)
		if err != nil {
			return nil, err
		}
		if int64(len(leaves)) != content.Leaves(content.Block(i, size).Len()) {
			return nil, fmt.Errorf("tree of blob %d: block %d is missing or damaged", b.num, i)
		}
		l.Hashes = append(l.Hashes, content.BlockHash(leaves, size))
	}
	return l, nil
}

// hashBlock reads a range of the body and hashes its leaves.
func (b *blob) hashBlock(r content.Range) ([]content.Hash, error) {
	leaves, err := content.HashLeaves(make([]content.Hash, 0, content.LeavesPerBlock), io.NewSectionReader(b.body, r.Off, r.Len()))
	if err != nil {
		return nil, err
	}
	if int64(len(leaves)) != content.Leaves(r.Len()) {
		return nil, fmt.Errorf("body of blob %d is shorter than %s", b.num, r)
	}
	return leaves, nil
}

package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/cistern-edge/cistern/cache/content"
)

// Blob is an open body with its sidecar. The order that keeps it honest: write
// bytes, Sync, then PutSlot; and Forget before a durable block is written again.
// All methods are safe for concurrent use, but one number should be open for
// writing once only.
type Blob struct {
	num  uint64
	body *os.File
	tree *os.File

	mu      sync.Mutex // guards the head of the sidecar, and entered
	entered bool       // the entries of both files are durable
}

func blobPath(dir string, num uint64) string {
	return filepath.Join(dir, "blobs", fmt.Sprintf("%02x", byte(num)), fmt.Sprintf("%016x", num))
}

// Create makes an empty blob. The size is in bytes or content.UnknownSize; see
// Reserve for the room. The card has at most MaxCard bytes and may be nil. A number that
// is there already gives an error that wraps fs.ErrExist.
func (v *Volume) Create(num uint64, size int64, card []byte) (*Blob, error) {
	b, err := v.create(num, size, card)
	if err != nil {
		return nil, within(fmt.Sprintf("create blob %d", num), err)
	}
	return b, nil
}

func (v *Volume) create(num uint64, size int64, card []byte) (*Blob, error) {
	if err := checkCard(card); err != nil {
		return nil, err
	}
	if size < content.UnknownSize {
		return nil, fmt.Errorf("size is %d", size)
	}
	if err := v.shard(num); err != nil {
		return nil, err
	}
	path := blobPath(v.dir, num)
	const flag = os.O_RDWR | os.O_CREATE | os.O_EXCL
	body, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	tree, err := os.OpenFile(path+".tree", flag, 0o600)
	if err != nil {
		return nil, errors.Join(err, body.Close(), os.Remove(path))
	}
	b := &Blob{num: num, body: body, tree: tree}
	_, err = tree.WriteAt(appendCard(appendHeader(make([]byte, 0, headSize), num, size), num, card), 0)
	if err == nil && size >= 0 {
		err = b.body.Truncate(size)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close(), v.Remove(num))
	}
	return b, nil
}

func checkCard(card []byte) error {
	if len(card) > MaxCard {
		return fmt.Errorf("card has %d bytes, %d is the most", len(card), MaxCard)
	}
	return nil
}

// Open opens a blob; on a read-only file system only for reading. The error wraps
// fs.ErrNotExist if one of its files is not there.
func (v *Volume) Open(num uint64) (*Blob, error) {
	path := blobPath(v.dir, num)
	body, err := openFile(path)
	if err != nil {
		return nil, within(fmt.Sprintf("open blob %d", num), err)
	}
	tree, err := openFile(path + ".tree")
	if err != nil {
		return nil, within(fmt.Sprintf("open blob %d", num), errors.Join(err, body.Close()))
	}
	return &Blob{num: num, body: body, tree: tree}, nil
}

func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(Classify(err), ErrReadOnly) {
		return os.Open(path)
	}
	return f, err
}

// OpenBody opens the body of a blob for reading, with a descriptor and so a file
// position of its own.
func (v *Volume) OpenBody(num uint64) (*os.File, error) {
	f, err := os.Open(blobPath(v.dir, num))
	return f, within(fmt.Sprintf("open body of blob %d", num), err)
}

// Remove removes a blob, or what there is of it; bodies that are open stay
// readable. A power cut can bring it back.
func (v *Volume) Remove(num uint64) error {
	path := blobPath(v.dir, num)
	var failed error
	for _, p := range []string{path, path + ".tree"} {
		if err := os.Remove(p); err != nil && !missing(err) {
			failed = errors.Join(failed, err)
		}
	}
	return within(fmt.Sprintf("remove blob %d", num), failed)
}

// Num is the blob's number.
func (b *Blob) Num() uint64 { return b.num }

// File is the body. The blob closes it.
func (b *Blob) File() *os.File { return b.body }

// Close closes both files and makes nothing durable.
func (b *Blob) Close() error { return errors.Join(b.body.Close(), b.tree.Close()) }

// ReadAt reads from the body.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.body.ReadAt(p, off)
	return n, Classify(err)
}

// WriteAt writes to the body.
func (b *Blob) WriteAt(p []byte, off int64) (int, error) {
	n, err := b.body.WriteAt(p, off)
	return n, Classify(err)
}

// Size reads what the sidecar says of the body: its size in bytes or
// content.UnknownSize. The error wraps ErrDamaged if the header is not sound.
func (b *Blob) Size() (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	head, err := b.head()
	if err != nil {
		return 0, err
	}
	return parseHeader(head, b.num)
}

// head reads as much of the head as there is; b.mu is held.
func (b *Blob) head() ([]byte, error) {
	head := make([]byte, headSize)
	n, err := b.tree.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, within(fmt.Sprintf("read head of blob %d", b.num), err)
	}
	return head[:n], nil
}

// SetSize says how large the body is, and cuts off what was written beyond the
// end. content.UnknownSize takes the size back.
func (b *Blob) SetSize(size int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if size < content.UnknownSize {
		return fmt.Errorf("set size of blob %d: size is %d", b.num, size)
	}
	_, err := b.tree.WriteAt(appendHeader(nil, b.num, size), 0)
	if err == nil && size >= 0 {
		err = b.body.Truncate(size)
	}
	return within(fmt.Sprintf("set size of blob %d to %d bytes", b.num, size), err)
}

// Reserve takes the room for a body of size bytes, so that what is written later
// finds it. The error wraps ErrFull if there is not enough.
func (b *Blob) Reserve(size int64) error {
	return within(fmt.Sprintf("reserve %d bytes for blob %d", size, b.num), allocate(b.body, size))
}

// Card reads the card; nil if there is none. The error wraps ErrDamaged if it is
// not sound, for instance because a crash cut SetCard short.
func (b *Blob) Card() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	head, err := b.head()
	if err != nil || len(head) < headerSize {
		return nil, err
	}
	return parseCard(head[headerSize:], b.num)
}

// SetCard writes the card, at most MaxCard bytes, in place of the older one; nil
// takes it away. SyncTree makes it durable; a crash before that may leave the
// blob without a card, never with a wrong one.
func (b *Blob) SetCard(card []byte) error {
	if err := checkCard(card); err != nil {
		return fmt.Errorf("set card of blob %d: %w", b.num, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.tree.WriteAt(appendCard(nil, b.num, card), headerSize)
	return within(fmt.Sprintf("set card of blob %d", b.num), err)
}

// Sync makes the bytes of the body durable. The first call makes the blob itself
// durable too: head and directory entries. After an error the kernel may have
// dropped what was written: write it again, or hold it for lost.
func (b *Blob) Sync() error {
	err := syncData(b.body)
	if err == nil {
		err = b.enter()
	}
	return within(fmt.Sprintf("sync blob %d", b.num), err)
}

// enter makes what a blob consists of durable, once.
func (b *Blob) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.entered {
		return nil
	}
	if err := syncData(b.tree); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(b.body.Name())); err != nil {
		return err
	}
	b.entered = true
	return nil
}

// SyncTree makes the card, the size and the slots durable.
func (b *Blob) SyncTree() error {
	return within(fmt.Sprintf("sync tree of blob %d", b.num), syncData(b.tree))
}

// Drop asks the page cache to forget a range of the body, so that the next read
// is of the disk. What is not durable yet stays.
func (b *Blob) Drop(r content.Range) error {
	if r.Len() == 0 {
		return nil
	}
	return within(fmt.Sprintf("drop %s of blob %d", r, b.num), forget(b.body, r.Off, r.Len()))
}

package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cistern-edge/cistern/cache/content"
)

// Walk reads every blob's head, in no order, until use returns false: its size
// (or content.UnknownSize) and its card, nil if it has none or that one is
// damaged. A blob without a body, a sidecar or a sound header comes with an error
// that wraps ErrDamaged, or with that of the disk; so may one that is being
// created meanwhile. The card is valid during the call only.
func (v *Volume) Walk(use func(num uint64, size int64, card []byte, err error) bool) error {
	head := make([]byte, headSize)
	err := eachBlob(v.dir, func(num uint64, body, tree bool) error {
		size, card, err := int64(content.UnknownSize), []byte(nil), error(nil)
		switch {
		case !body:
			err = fmt.Errorf("blob %d has no body: %w", num, ErrDamaged)
		case !tree:
			err = fmt.Errorf("blob %d has no sidecar: %w", num, ErrDamaged)
		default:
			size, card, err = readHead(blobPath(v.dir, num)+".tree", num, head)
		}
		if missing(err) {
			return nil // removed meanwhile
		}
		if !use(num, size, card, err) {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return within("walk volume "+v.dir, err)
}

var errStop = errors.New("stop")

func readHead(path string, num uint64, buf []byte) (size int64, card []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return content.UnknownSize, nil, Classify(err)
	}
	defer f.Close()
	n, err := f.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return content.UnknownSize, nil, Classify(err)
	}
	if size, err = parseHeader(buf[:n], num); err != nil {
		return content.UnknownSize, nil, err
	}
	card, _ = parseCard(buf[headerSize:n], num) // a damaged one is none
	return size, card, nil
}

// Sweep removes blobs with numbers below before that known does not know:
// leftovers of a create or a removal that a crash cut short. It may run while the
// volume is in use.
func (v *Volume) Sweep(before uint64, known func(num uint64) bool) (removed int, err error) {
	err = eachBlob(v.dir, func(num uint64, _, _ bool) error {
		if num >= before || known(num) {
			return nil
		}
		removed++
		return v.Remove(num)
	})
	return removed, within("sweep volume "+v.dir, err)
}

// eachBlob says of each number whether its files are there, until use fails.
// Folders that cannot be read are passed over and told at the end.
func eachBlob(dir string, use func(num uint64, body, tree bool) error) error {
	var unread error
	for shard := range 256 {
		folder := filepath.Join(dir, "blobs", fmt.Sprintf("%02x", shard))
		entries, err := os.ReadDir(folder)
		if missing(err) {
			continue
		}
		if err != nil { // half a list would make half blobs of whole ones
			unread = errors.Join(unread, err)
			continue
		}
		for i := 0; i < len(entries); i++ { // sorted: a sidecar follows its body
			name := entries[i].Name()
			num, ok := blobNumber(strings.TrimSuffix(name, ".tree"), byte(shard))
			if !ok {
				continue
			}
			body, tree := !strings.HasSuffix(name, ".tree"), strings.HasSuffix(name, ".tree")
			if body && i+1 < len(entries) && entries[i+1].Name() == name+".tree" {
				tree = true
				i++
			}
			if err := use(num, body, tree); err != nil {
				return err
			}
		}
	}
	return unread
}

func blobNumber(name string, shard byte) (uint64, bool) {
	num, err := strconv.ParseUint(name, 16, 64)
	return num, err == nil && byte(num) == shard && name == fmt.Sprintf("%016x", num)
}

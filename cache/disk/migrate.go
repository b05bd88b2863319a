package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/cistern-edge/cistern/cache/content"
)

// Format 1 has no marker. Its sidecars begin with "CISTREE1", have a header of 32
// bytes and no card, and the checksums of header and slots leave the number out.
const treeMagicV1 = "CISTREE1"

// MigrateV1 turns a volume of format 1 into one of today's: it writes each
// sidecar anew, with the card that card gives for it (nil for none), and the
// marker last. After a crash it goes on where it was; a volume of today's format
// it leaves alone. Sidecars that are damaged stay as they are and are counted.
func MigrateV1(dir string, card func(num uint64) []byte) (migrated, damaged int, err error) {
	lock, err := lockDir(dir)
	if err != nil {
		return 0, 0, within("migrate volume "+dir, err)
	}
	migrated, damaged, err = migrateV1(dir, card)
	return migrated, damaged, within("migrate volume "+dir, errors.Join(err, lock.Close()))
}

func migrateV1(dir string, card func(num uint64) []byte) (migrated, damaged int, err error) {
	if _, err := readMarker(dir); !missing(err) {
		return 0, 0, err
	}
	err = eachBlob(dir, func(num uint64, _, tree bool) error {
		if !tree {
			return nil
		}
		done, err := migrateTree(blobPath(dir, num)+".tree", num, card)
		if errors.Is(err, ErrDamaged) {
			damaged++
			return nil
		}
		if done {
			migrated++
		}
		return err
	})
	if err != nil {
		return migrated, damaged, err
	}
	_, err = writeMarker(dir)
	return migrated, damaged, err
}

// migrateTree writes one sidecar anew, unless that has been done.
func migrateTree(path string, num uint64, card func(num uint64) []byte) (done bool, err error) {
	old, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer old.Close()
	var h [headerSize]byte
	if _, err := io.ReadFull(old, h[:]); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return false, err
	}
	if string(h[:8]) == treeMagic {
		return false, nil
	}
	if string(h[:8]) != treeMagicV1 || binary.BigEndian.Uint64(h[8:]) != num ||
		binary.BigEndian.Uint32(h[24:]) != crc32.Checksum(h[:24], castagnoli) {
		return false, fmt.Errorf("sidecar of blob %d: %w", num, ErrDamaged)
	}
	c := card(num)
	if err := checkCard(c); err != nil {
		return false, err
	}
	size := max(int64(binary.BigEndian.Uint64(h[16:])), content.UnknownSize)
	return true, replaceFile(path, func(to *os.File) error {
		if _, err := to.WriteAt(appendCard(appendHeader(nil, num, size), num, c), 0); err != nil {
			return err
		}
		return copySlots(to, old, num)
	})
}

// copySlots seals the sound slots of the old sidecar anew; the others stay empty.
func copySlots(to io.WriterAt, old io.ReaderAt, num uint64) error {
	buf := make([]byte, slotSize)
	for i := int64(0); ; i++ {
		n, err := old.ReadAt(buf, headerSize+i*slotSize)
		if n == 0 && err == io.EOF {
			return nil
		}
		if err != nil && err != io.EOF {
			return err
		}
		if leaves := parseSlotV1(buf[:n], i); leaves != nil {
			if _, err := to.WriteAt(appendSlot(nil, num, i, slot{leaves: leaves}), slotOff(i)); err != nil {
				return err
			}
		}
	}
}

func parseSlotV1(b []byte, i int64) []content.Hash {
	if len(b) < 8 {
		return nil
	}
	count := binary.BigEndian.Uint32(b[4:])
	if count < 1 || count > content.LeavesPerBlock || int(8+32*count) > len(b) ||
		binary.BigEndian.Uint32(b) != sum(b[4:8+32*count], uint64(i)) {
		return nil
	}
	leaves := make([]content.Hash, count)
	for j := range leaves {
		copy(leaves[j][:], b[8+32*j:])
	}
	return leaves
}

// holdsV1 reports whether any sidecar is of format 1.
func holdsV1(dir string) (bool, error) {
	var magic [8]byte
	err := eachBlob(dir, func(num uint64, _, tree bool) error {
		if !tree {
			return nil
		}
		f, err := os.Open(blobPath(dir, num) + ".tree")
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := io.ReadFull(f, magic[:]); err == nil && string(magic[:]) == treeMagicV1 {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return true, nil
	}
	return false, err
}

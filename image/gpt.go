package image

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"unicode/utf16"
)

// GUID is stored as UEFI does: the first three groups little-endian.
type GUID [16]byte

// ParseGUID reads the usual text of 36 characters.
func ParseGUID(text string) (g GUID, err error) {
	raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(raw) != 16 {
		return g, fmt.Errorf("%q is no GUID", text)
	}
	return GUID{raw[3], raw[2], raw[1], raw[0], raw[5], raw[4], raw[7], raw[6], raw[8], raw[9], raw[10], raw[11], raw[12], raw[13], raw[14], raw[15]}, nil
}

// Partition is an entry of the table. Start and Size are bytes, multiples of
// 512.
type Partition struct {
	Number      int
	Name        string
	Type, ID    GUID
	Start, Size int64
}

// Table is a GUID partition table (UEFI 2.10 §5.3) with sectors of 512 bytes.
type Table struct {
	Disk       GUID
	Partitions []Partition // by number; those that are not there are left out
}

const (
	sector     = 512
	gptEntries = 128
	gptEntry   = 128
	gptSectors = gptEntries * gptEntry / sector
	gptHeader  = 92
)

// gptMagic begins both headers.
const gptMagic = "EFI PART"

// ErrNoTable says that a disk has no partition table that holds together.
var ErrNoTable = errors.New("no valid GUID partition table")

// ReadTable reads the table of a disk of so many bytes: the first, or the second
// where that does not hold together.
func ReadTable(disk io.ReaderAt, size int64) (Table, error) {
	t, err := readTable(disk, 1)
	if err != nil && size > 2*sector {
		if second, serr := readTable(disk, size/sector-1); serr == nil {
			return second, nil
		}
	}
	return t, err
}

func readTable(disk io.ReaderAt, lba int64) (Table, error) {
	head := make([]byte, sector)
	if _, err := disk.ReadAt(head, lba*sector); err != nil {
		return Table{}, fmt.Errorf("read the partition table: %w", err)
	}
	le := binary.LittleEndian
	if string(head[:8]) != gptMagic || le.Uint32(head[12:]) != gptHeader || le.Uint32(head[80:]) != gptEntries || le.Uint32(head[84:]) != gptEntry {
		return Table{}, ErrNoTable
	}
	if le.Uint64(head[24:]) != uint64(lba) {
		return Table{}, fmt.Errorf("%w: its header says that it lies elsewhere", ErrNoTable)
	}
	sum := le.Uint32(head[16:])
	clear(head[16:20])
	if crc32.ChecksumIEEE(head[:gptHeader]) != sum {
		return Table{}, fmt.Errorf("%w: its header's checksum is wrong", ErrNoTable)
	}
	at := le.Uint64(head[72:])
	if at < 2 || at > 1<<40 {
		return Table{}, fmt.Errorf("%w: its entries lie at sector %d", ErrNoTable, at)
	}
	entries := make([]byte, gptEntries*gptEntry)
	if _, err := disk.ReadAt(entries, int64(at)*sector); err != nil {
		return Table{}, fmt.Errorf("read the partition table: %w", err)
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(head[88:]) {
		return Table{}, fmt.Errorf("%w: its entries' checksum is wrong", ErrNoTable)
	}
	t := Table{Disk: GUID(head[56:72])}
	for i := range gptEntries {
		e := entries[i*gptEntry:][:gptEntry]
		if GUID(e[:16]) == (GUID{}) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if first < 2 || last < first || last > 1<<50 {
			return Table{}, fmt.Errorf("%w: partition %d ends before it begins", ErrNoTable, i+1)
		}
		t.Partitions = append(t.Partitions, Partition{
			Number: i + 1, Name: utf16Name(e[56:]), Type: GUID(e[:16]), ID: GUID(e[16:32]),
			Start: int64(first) * sector, Size: int64(last-first+1) * sector,
		})
	}
	return t, nil
}

// Rename gives the disk and every partition an ID of its own, so that no two
// disks that began as the same image are taken for one another.
func (t *Table) Rename() {
	t.Disk = randomGUID()
	for i := range t.Partitions {
		t.Partitions[i].ID = randomGUID()
	}
}

// randomGUID is of version 4 (RFC 9562 §5.4).
func randomGUID() (g GUID) {
	_, _ = rand.Read(g[:]) // it never fails
	g[7] = g[7]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g
}

// Find gives the partition with a number.
func (t *Table) Find(number int) *Partition {
	for i := range t.Partitions {
		if t.Partitions[i].Number == number {
			return &t.Partitions[i]
		}
	}
	return nil
}

// Grow makes the last partition end where the second table of a disk of so many
// bytes begins, to the whole MiB, and says whether that changed anything.
func (t *Table) Grow(diskSize int64) bool {
	if len(t.Partitions) == 0 {
		return false
	}
	last := &t.Partitions[0]
	for i := range t.Partitions {
		if t.Partitions[i].Start > last.Start {
			last = &t.Partitions[i]
		}
	}
	end := (diskSize - (gptSectors+1)*sector) / MiB * MiB
	if end <= last.Start+last.Size {
		return false
	}
	last.Size = end - last.Start
	return true
}

// Write writes both tables for a disk of so many bytes and the protective
// record of sector 0, whose boot code (its first 440 bytes) it leaves alone. The
// second table is written first: whichever write is cut, one is whole.
func (t *Table) Write(disk io.WriterAt, size int64) error {
	sectors := uint64(size / sector)
	entries := make([]byte, gptEntries*gptEntry)
	for _, p := range t.Partitions {
		if p.Number < 1 || p.Number > gptEntries || p.Start < (2+gptSectors)*sector || p.Size < sector ||
			p.Start+p.Size > size-(1+gptSectors)*sector {
			return fmt.Errorf("write the partition table: partition %d does not fit", p.Number)
		}
		p.put(entries[(p.Number-1)*gptEntry:][:gptEntry])
	}
	second := sectors - 1
	writes := []struct {
		at   uint64
		data []byte
	}{
		{second - gptSectors, entries},
		{second, t.header(sectors, second, 1, second-gptSectors, entries)},
		{2, entries},
		{1, t.header(sectors, 1, second, 2, entries)},
	}
	for _, w := range writes {
		if _, err := disk.WriteAt(w.data, int64(w.at)*sector); err != nil {
			return fmt.Errorf("write the partition table: %w", err)
		}
	}
	if _, err := disk.WriteAt(protective(sectors), 446); err != nil {
		return fmt.Errorf("write the partition table: %w", err)
	}
	return nil
}

func (p *Partition) put(e []byte) {
	le := binary.LittleEndian
	copy(e, p.Type[:])
	copy(e[16:], p.ID[:])
	le.PutUint64(e[32:], uint64(p.Start/sector))
	le.PutUint64(e[40:], uint64((p.Start+p.Size)/sector-1))
	for i, u := range utf16.Encode([]rune(p.Name)) {
		if i < 36 {
			le.PutUint16(e[56+2*i:], u)
		}
	}
}

func (t *Table) header(sectors, own, other, entriesAt uint64, entries []byte) []byte {
	le := binary.LittleEndian
	h := make([]byte, sector)
	copy(h, gptMagic)
	le.PutUint32(h[8:], 0x10000)
	le.PutUint32(h[12:], gptHeader)
	le.PutUint64(h[24:], own)
	le.PutUint64(h[32:], other)
	le.PutUint64(h[40:], 2+gptSectors)
	le.PutUint64(h[48:], sectors-2-gptSectors)
	copy(h[56:], t.Disk[:])
	le.PutUint64(h[72:], entriesAt)
	le.PutUint32(h[80:], gptEntries)
	le.PutUint32(h[84:], gptEntry)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:gptHeader]))
	return h
}

// protective is the part of sector 0 from byte 446: one entry of type EE over
// the whole disk, and the signature.
func protective(sectors uint64) []byte {
	m := make([]byte, 66)
	copy(m, []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0})
	binary.LittleEndian.PutUint32(m[12:], uint32(min(sectors-1, 0xffffffff)))
	m[64], m[65] = 0x55, 0xaa
	return m
}

func utf16Name(raw []byte) string {
	units := make([]uint16, 0, 36)
	for b := range slices.Chunk(raw, 2) {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

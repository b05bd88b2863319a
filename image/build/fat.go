package build

import (
	"encoding/binary"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf16"
)

// fat makes a FAT32 file system (Microsoft's specification 1.03) of so many
// bytes that holds files, by path, the same for the same files. What it gives
// ends with the last cluster that is used: the rest of the volume is free and
// may hold anything.
func fat(size int64, label string, date time.Time, files map[string][]byte) ([]byte, error) {
	f := &fatFS{sectors: size / fatSector, date: date}
	// The largest clusters that leave enough of them to be FAT32.
	for f.perCluster = 8; f.perCluster > 1 && f.sectors/f.perCluster < 70_000; f.perCluster /= 2 {
	}
	f.fatSectors = (f.sectors/f.perCluster + 2 + 127) / 128
	f.clusters = (f.sectors - fatReserved - 2*f.fatSectors) / f.perCluster
	if f.clusters < 65_525 {
		return nil, fmt.Errorf("make a FAT volume: %d bytes are too few", size)
	}
	f.table = []uint32{0x0ffffff8, 0x0fffffff}
	root := newDir()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := root.add(strings.Split(path.Clean(name), "/"), files[name]); err != nil {
			return nil, err
		}
	}
	f.alloc(root.bytes())
	if err := f.writeDir(root, 2, 0, label); err != nil {
		return nil, err
	}
	return f.assemble(label)
}

const (
	fatSector   = 512
	fatReserved = 32
	endOfChain  = 0x0fffffff
)

type fatFS struct {
	sectors, perCluster, fatSectors, clusters int64
	date                                      time.Time
	table                                     []uint32
	data                                      []byte // from cluster 2 on
}

type fatDir struct {
	dirs  map[string]*fatDir
	files map[string][]byte
}

func newDir() *fatDir { return &fatDir{map[string]*fatDir{}, map[string][]byte{}} }

func (d *fatDir) add(names []string, body []byte) error {
	if names[0] == "" || names[0] == ".." || len(names[0]) > 255 {
		return fmt.Errorf("make a FAT volume: %q is no name", names[0])
	}
	if len(names) == 1 {
		d.files[names[0]] = body
		return nil
	}
	sub := d.dirs[names[0]]
	if sub == nil {
		sub = newDir()
		d.dirs[names[0]] = sub
	}
	return sub.add(names[1:], body)
}

func (f *fatFS) clusterBytes() int { return int(f.perCluster) * fatSector }

// alloc takes clusters for n bytes, at least one, and gives the first.
func (f *fatFS) alloc(n int) uint32 {
	first := uint32(len(f.table))
	count := max(1, (n+f.clusterBytes()-1)/f.clusterBytes())
	for i := range count {
		next := first + uint32(i) + 1
		if i == count-1 {
			next = endOfChain
		}
		f.table = append(f.table, next)
	}
	f.data = append(f.data, make([]byte, count*f.clusterBytes())...)
	return first
}

func (f *fatFS) at(cluster uint32) []byte { return f.data[int(cluster-2)*f.clusterBytes():] }

// writeDir writes the entries of d, whose first cluster is taken already.
func (f *fatFS) writeDir(d *fatDir, own, parent uint32, label string) error {
	var entries []byte
	if label != "" {
		entries = append(entries, f.entry(fmt.Sprintf("%-11s", label), 0x08, 0, 0)...)
	} else {
		entries = append(entries, f.entry(".          ", 0x10, own, 0)...)
		entries = append(entries, f.entry("..         ", 0x10, parent, 0)...)
	}
	short := map[string]bool{}
	type child struct {
		dir   *fatDir
		first uint32
	}
	var children []child
	for _, name := range slices.Sorted(maps.Keys(d.dirs)) {
		first := f.alloc(d.dirs[name].bytes())
		children = append(children, child{d.dirs[name], first})
		entries = append(entries, f.named(name, short, 0x10, first, 0)...)
	}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		body := d.files[name]
		first := uint32(0)
		if len(body) > 0 {
			first = f.alloc(len(body))
			copy(f.at(first), body)
		}
		entries = append(entries, f.named(name, short, 0x20, first, len(body))...)
	}
	copy(f.at(own), entries)
	// A folder of the root names cluster 0 as its parent (§6.5).
	if own == 2 {
		own = 0
	}
	for _, c := range children {
		if err := f.writeDir(c.dir, c.first, own, ""); err != nil {
			return err
		}
	}
	return nil
}

// bytes is the room that the entries of a folder take at most.
func (d *fatDir) bytes() int {
	n := 2 * 32
	for name := range d.dirs {
		n += 32 * (2 + len(name)/13 + 1)
	}
	for name := range d.files {
		n += 32 * (2 + len(name)/13 + 1)
	}
	return n
}

// named is an entry with the long name before it where the short one does not
// say it all.
func (f *fatFS) named(name string, taken map[string]bool, attr byte, first uint32, size int) []byte {
	short, exact := shortName(name, taken)
	taken[short] = true
	entry := f.entry(short, attr, first, size)
	if exact {
		return entry
	}
	var sum byte
	for i := range 11 {
		sum = sum>>1 | sum<<7
		sum += short[i]
	}
	units := append(utf16.Encode([]rune(name)), 0)
	for len(units)%13 != 0 {
		units = append(units, 0xffff)
	}
	if len(units) == len([]rune(name))+1+12 && len([]rune(name))%13 == 0 {
		units = units[:len(units)-13] // a name that fills its entries has no terminator
	}
	var out []byte
	for i := len(units)/13 - 1; i >= 0; i-- {
		e := make([]byte, 32)
		e[0] = byte(i + 1)
		if i == len(units)/13-1 {
			e[0] |= 0x40
		}
		e[11], e[13] = 0x0f, sum
		for j, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
			binary.LittleEndian.PutUint16(e[at:], units[i*13+j])
		}
		out = append(out, e...)
	}
	return append(out, entry...)
}

// shortName is the name of 8.3 characters, and whether it is the whole name.
func shortName(name string, taken map[string]bool) (string, bool) {
	base, ext, _ := strings.Cut(name, ".")
	fits := len(base) <= 8 && len(ext) <= 3 && !strings.Contains(ext, ".") && name == strings.ToUpper(name)
	if fits {
		return fmt.Sprintf("%-8s%-3s", base, ext), true
	}
	clean := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
				return r
			}
			return -1
		}, strings.ToUpper(s))
	}
	stem, end := clean(strings.TrimSuffix(name, path.Ext(name))), clean(path.Ext(name))
	for n := 1; ; n++ {
		tail := fmt.Sprintf("~%d", n)
		short := fmt.Sprintf("%-8s%-3s", stem[:min(len(stem), 8-len(tail))]+tail, end[:min(len(end), 3)])
		if !taken[short] {
			return short, false
		}
	}
}

func (f *fatFS) entry(short string, attr byte, first uint32, size int) []byte {
	e := make([]byte, 32)
	copy(e, short)
	e[11] = attr
	le := binary.LittleEndian
	u := f.date.UTC()
	day := uint16(max(u.Year()-1980, 0)<<9 | int(u.Month())<<5 | u.Day())
	clock := uint16(u.Hour()<<11 | u.Minute()<<5 | u.Second()/2)
	le.PutUint16(e[14:], clock)
	le.PutUint16(e[16:], day)
	le.PutUint16(e[18:], day)
	le.PutUint16(e[22:], clock)
	le.PutUint16(e[24:], day)
	le.PutUint16(e[20:], uint16(first>>16))
	le.PutUint16(e[26:], uint16(first))
	le.PutUint32(e[28:], uint32(size))
	return e
}

// assemble puts boot sector, information sector, both tables and data together.
func (f *fatFS) assemble(label string) ([]byte, error) {
	if int64(len(f.table))-2 > f.clusters {
		return nil, fmt.Errorf("make a FAT volume: %d KiB of files do not fit", len(f.data)>>10)
	}
	start := (fatReserved + 2*f.fatSectors) * fatSector
	out := make([]byte, start, start+int64(len(f.data)))
	le := binary.LittleEndian
	b := out[:fatSector]
	copy(b, "\xeb\x58\x90CISTERN ")
	le.PutUint16(b[11:], fatSector)
	b[13] = byte(f.perCluster)
	le.PutUint16(b[14:], fatReserved)
	b[16], b[21] = 2, 0xf8
	le.PutUint16(b[24:], 63)
	le.PutUint16(b[26:], 255)
	le.PutUint32(b[32:], uint32(f.sectors))
	le.PutUint32(b[36:], uint32(f.fatSectors))
	le.PutUint32(b[44:], 2)
	le.PutUint16(b[48:], 1)
	le.PutUint16(b[50:], 6)
	b[64], b[66] = 0x80, 0x29
	le.PutUint32(b[67:], uint32(f.date.Unix()))
	copy(b[71:], fmt.Sprintf("%-11s", label))
	copy(b[82:], "FAT32   ")
	b[510], b[511] = 0x55, 0xaa
	info := out[fatSector:][:fatSector]
	le.PutUint32(info, 0x41615252)
	le.PutUint32(info[484:], 0x61417272)
	le.PutUint32(info[488:], uint32(f.clusters-int64(len(f.table)-2)))
	le.PutUint32(info[492:], uint32(len(f.table)))
	info[510], info[511] = 0x55, 0xaa
	copy(out[6*fatSector:], out[:2*fatSector])
	for n := range int64(2) {
		table := out[(fatReserved+n*f.fatSectors)*fatSector:]
		for i, next := range f.table {
			le.PutUint32(table[4*i:], next)
		}
	}
	return append(out, f.data...), nil
}

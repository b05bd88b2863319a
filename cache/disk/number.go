package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Segments are numbered upwards and never twice, for the owner's index may still
// name one that is gone. The file "next" holds a number that no segment has
// reached; it is moved on before one does, numbersAhead at a time.
const numbersAhead = 64

func openSegments(dir string, log *slog.Logger) (*Segments, error) {
	s := &Segments{
		dir: dir, log: log,
		files: &handles{dir: dir, sizes: map[uint32]int64{}, open: map[uint32]*handle{}},
	}
	data, err := os.ReadFile(filepath.Join(dir, "next"))
	if err == nil {
		if s.next, err = parseNext(data); err != nil {
			log.Warn("took the number of the next segment from the files", "dir", dir, "err", err)
		}
	} else if !missing(err) {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !missing(err) {
		return nil, err
	}
	for _, e := range entries {
		id, ok := segmentNumber(e.Name())
		if !ok {
			continue
		}
		if id >= s.next && id < math.MaxUint32 {
			s.next = id + 1
		}
		st, err := e.Info()
		if err != nil {
			return nil, err
		}
		s.files.sizes[id] = st.Size()
		if st.Size() == SegmentSize {
			s.cut(id)
		}
	}
	s.reserved = s.next
	return s, nil
}

// cut frees what a segment has reserved and not used, and the record that a crash
// has torn; one that has nothing to read is removed. What fails here fails again
// where it matters.
func (s *Segments) cut(id uint32) {
	x, err := s.files.get(id)
	if errors.Is(err, ErrDamaged) {
		if err := s.Remove(id); err == nil {
			s.log.Warn("removed a segment without a sound header", "dir", s.dir, "segment", id)
		}
		return
	}
	if err != nil {
		return
	}
	if writtenToEnd(x.file) {
		s.files.put(x)
		return
	}
	data, err := readSegment(x.file)
	end := scanRecords(data, id, x.salt, func(record, []byte, []byte, error) bool { return true })
	s.files.put(x)
	if err == nil && os.Truncate(segmentPath(s.dir, id), end) == nil {
		s.files.resize(id, end)
	}
}

// writtenToEnd tells that a segment has nothing to free: what was reserved and not
// used is zeros. Reading all of each full one would hold up the start.
func writtenToEnd(f *os.File) bool {
	var last [recordAlign]byte
	_, err := f.ReadAt(last[:], SegmentSize-recordAlign)
	return err == nil && last != [recordAlign]byte{}
}

func segmentNumber(name string) (uint32, bool) {
	id, err := strconv.ParseUint(strings.TrimSuffix(name, ".seg"), 16, 32)
	return uint32(id), err == nil && name == fmt.Sprintf("%08x.seg", id)
}

// reserve makes sure that the next number is taken on disk before a file has it.
func (s *Segments) reserve() error {
	if s.next < s.reserved {
		return nil
	}
	if s.next >= math.MaxUint32-numbersAhead {
		return fmt.Errorf("segment %d: no numbers are left", s.next)
	}
	if err := makeDir(s.dir); err != nil {
		return err
	}
	err := replaceFile(filepath.Join(s.dir, "next"), func(f *os.File) error {
		_, err := f.Write(appendNext(nil, s.next+numbersAhead))
		return err
	})
	if err != nil {
		return err
	}
	s.reserved = s.next + numbersAhead
	return nil
}

func appendNext(b []byte, next uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, next)
	return binary.BigEndian.AppendUint32(b, sum(b))
}

func parseNext(b []byte) (uint32, error) {
	if len(b) != 8 || binary.BigEndian.Uint32(b[4:]) != sum(b[:4]) {
		return 0, fmt.Errorf("number of the next segment: %w", ErrDamaged)
	}
	return binary.BigEndian.Uint32(b), nil
}

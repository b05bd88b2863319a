package qualify

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// markBytes is the size of a mark and the grain of everything that is read or
// written past the cache.
const markBytes = 4096

// chunkBytes is what is written or read at once where marks lie side by side.
const chunkBytes = 1 << 20

// media is a disk, or a file on one, without a cache between.
type media interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// survey looks for capacity that is not there. A fake disk says that it holds
// more than it does; what is written beyond either comes round and overwrites
// what lay before (after any number of bytes), or is lost.
//
// Marks without a gap fill the beginning. Then a mark is set at each step of a
// little less than that length: whatever the number of bytes after which writes
// come round, one of the steps lands on a mark at the beginning. The square root
// of the size is enough for either.
type survey struct {
	disk  media
	size  int64
	dense int64 // bytes of marks at the beginning
	step  int64
	run   uint64 // tells these marks from those of an earlier survey
	buf   []byte // chunkBytes, aligned as the disk wants it
	found client.Capacity
}

// newSurvey plans marks for size bytes; buf has chunkBytes, run is any number
// that was not used before.
func newSurvey(disk media, size int64, run uint64, buf []byte) (*survey, error) {
	size -= size % markBytes
	if size < minSpan {
		return nil, fmt.Errorf("%d bytes are too few to look for a fake", size)
	}
	dense := roundUp(int64(math.Sqrt(float64(size)*markBytes)), chunkBytes)
	s := &survey{disk: disk, size: size, dense: dense, step: dense / 8 * 7 / markBytes * markBytes, run: run, buf: buf}
	s.found = client.Capacity{Bytes: size, Planned: int(dense/markBytes) + s.steps()}
	return s, nil
}

func roundUp(n, grain int64) int64 { return (n + grain - 1) / grain * grain }

// steps is the number of single marks; the last one is at the end.
func (s *survey) steps() int { return int((s.size-s.dense-markBytes)/s.step) + 1 }

// place is where single mark k lies. Whatever number of them is taken, they are
// spread evenly: each half of the distance left before.
func (s *survey) place(k int) int64 {
	width := bits.Len(uint(s.steps() - 1))
	at := int64(bits.Reverse64(uint64(k)) >> (64 - width))
	return s.size - markBytes - at*s.step
}

// places is how many numbers place has to be asked for; some lie before the end
// of the dense part, and are none.
func (s *survey) places() int { return 1 << bits.Len(uint(s.steps()-1)) }

// mark fills b with what belongs to offset off.
func (s *survey) mark(b []byte, off int64) {
	binary.LittleEndian.PutUint64(b, s.run)
	binary.LittleEndian.PutUint64(b[8:], uint64(off))
	x := s.run ^ uint64(off)*0x9e3779b97f4a7c15 | 1
	for i := 16; i < len(b); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b[i:], x)
	}
}

// look writes for three fifths of the time and then reads back what it wrote. An
// error is one of the disk.
func (s *survey) look(ctx context.Context, limit time.Duration, tell func(done float64)) (client.Capacity, error) {
	start := time.Now()
	dense, err := s.writeDense(ctx, start.Add(limit*3/10))
	if err != nil {
		return s.found, fmt.Errorf("write marks: %w", err)
	}
	written := 0
	for ; written < s.places() && (written == 0 || time.Since(start) < limit*6/10) && ctx.Err() == nil; written++ {
		if off := s.place(written); off >= dense {
			s.mark(s.buf[:markBytes], off)
			if _, err := s.disk.WriteAt(s.buf[:markBytes], off); err != nil {
				s.wrong(off)
			}
		}
		if written%64 == 0 {
			tell(min(time.Since(start).Seconds()/limit.Seconds(), 0.6))
		}
	}
	if err := s.disk.Sync(); err != nil {
		return s.found, fmt.Errorf("write marks: %w", err)
	}
	// The single marks first: they are fewer, and those beyond the end are gone.
	for k := 0; k < written && time.Since(start) < limit && ctx.Err() == nil; k++ {
		if off := s.place(k); off >= dense {
			if err := s.read(off, markBytes); err != nil {
				return s.found, err
			}
		}
		if k%64 == 0 {
			tell(min(time.Since(start).Seconds()/limit.Seconds(), 0.9))
		}
	}
	for off := int64(0); off < dense && ctx.Err() == nil; off += chunkBytes {
		if off > 0 && time.Since(start) > limit {
			break
		}
		if err := s.read(off, chunkBytes); err != nil {
			return s.found, err
		}
	}
	return s.found, ctx.Err()
}

func (s *survey) writeDense(ctx context.Context, until time.Time) (int64, error) {
	for off := int64(0); off < s.dense; off += chunkBytes {
		if off > 0 && time.Now().After(until) || ctx.Err() != nil {
			return off, nil
		}
		for i := int64(0); i < chunkBytes; i += markBytes {
			s.mark(s.buf[i:i+markBytes], off+i)
		}
		if _, err := s.disk.WriteAt(s.buf[:chunkBytes], off); err != nil {
			return 0, err
		}
	}
	return s.dense, nil
}

// read compares the marks of n bytes. What cannot be read is wrong.
func (s *survey) read(off, n int64) error {
	b := s.buf[:n]
	if _, err := s.disk.ReadAt(b, off); err != nil {
		s.found.Marks += int(n / markBytes)
		s.wrong(off)
		return nil
	}
	want := make([]byte, markBytes)
	for i := int64(0); i < n; i += markBytes {
		s.found.Marks++
		s.mark(want, off+i)
		got := b[i : i+markBytes]
		if bytes.Equal(got, want) {
			continue
		}
		s.wrong(off + i)
		// A whole mark of another place says how far the two are apart.
		other := int64(binary.LittleEndian.Uint64(got[8:]))
		if s.mark(want, other); bytes.Equal(got, want) && other > off+i && (s.found.Wraps == 0 || other-off-i < s.found.Wraps) {
			s.found.Wraps = other - off - i
		}
	}
	return nil
}

func (s *survey) wrong(off int64) {
	if s.found.Wrong == 0 || off < s.found.First {
		s.found.First = off
	}
	s.found.Wrong++
}

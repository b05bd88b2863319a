package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/table"
)

// check proves that Badger can open what is in dir, and that it is what Badger
// wrote. Badger itself ends the process on some flipped bits (in goroutines of
// its own, or by log.Fatal), and on others goes on without a table: an older
// value of a key would come back. It also clears away what Badger does not need,
// so that flips there do not matter.
func check(dir string) error {
	if why, err := os.ReadFile(filepath.Join(dir, condemned)); err == nil {
		return fmt.Errorf("%s", bytes.ToValidUTF8(why[:min(len(why), 200)], nil))
	}
	files, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		switch ext := filepath.Ext(path); {
		case ext == ".mem":
			err = checkLog(path)
		// No value is long enough for a value log, and nothing is encrypted.
		case ext == ".vlog", f.Name() == "DISCARD", f.Name() == "KEYREGISTRY":
			err = os.Remove(path)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
	}
	tables, err := checkManifest(filepath.Join(dir, badger.ManifestFilename), files)
	if err != nil {
		return fmt.Errorf("%s: %w", badger.ManifestFilename, err)
	}
	return checkTables(dir, tables)
}

// missing tells that there is no index in dir.
func missing(dir string) (bool, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	return len(files) == 0, err
}

// checkManifest reads which tables there are. Badger takes a flipped length for
// the torn end of the file, and deletes the tables it then does not know.
func checkManifest(path string, files []os.DirEntry) ([]uint64, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, orphans(files)
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, end, err := badger.ReplayManifestFile(f, 0, badger.Options{})
	if err != nil {
		return nil, err
	}
	if tail := data[end:]; len(tail) > 8 && lengthIsWrong(tail) {
		return nil, errors.New("a length in it is damaged")
	}
	ids := make([]uint64, 0, len(m.Tables))
	for id := range m.Tables {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// lengthIsWrong tells that the unfinished record of a manifest is in fact whole:
// some length makes its checksum right.
func lengthIsWrong(tail []byte) bool {
	want, crc := binary.BigEndian.Uint32(tail[4:]), uint32(0)
	for i := range tail[8:] {
		if crc = crc32.Update(crc, castagnoli, tail[8+i:9+i]); crc == want {
			return true
		}
	}
	return false
}

// orphans tells of tables and logs without a manifest, which Badger would delete.
func orphans(files []os.DirEntry) error {
	for _, f := range files {
		if ext := filepath.Ext(f.Name()); ext == ".sst" || ext == ".mem" {
			return fmt.Errorf("it is missing, and %s is there", f.Name())
		}
	}
	return nil
}

// checkTables checks tables, several at a time.
func checkTables(dir string, ids []uint64) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards errs
		errs []error
	)
	next := make(chan uint64)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var buf bytes.Buffer
			for id := range next {
				if err := checkTable(table.NewFilename(id, dir), &buf); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("table %d: %w", id, err))
					mu.Unlock()
				}
			}
		})
	}
	for _, id := range ids {
		next <- id
	}
	close(next)
	wg.Wait()
	return errors.Join(errs[:min(len(errs), 3)]...)
}

var errTable = errors.New("its bytes are not as they were written")

// checkTable proves each byte of a table: blocks, an index of them, and behind
// each its checksum and that one's length.
func checkTable(path string, buf *bytes.Buffer) (err error) {
	defer func() {
		if recover() != nil {
			err = errTable
		}
	}()
	data, err := slurp(path, buf)
	if err != nil {
		return err
	}
	rest, err := proved(data)
	if err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(rest[len(rest)-4:])
	blocks, index := rest[:len(rest)-4-int(size)], rest[len(rest)-4-int(size):len(rest)-4]
	if sumOf(data, len(rest)) != crc32.Checksum(index, castagnoli) {
		return errTable
	}
	var at fb.BlockOffset
	list, end := fb.GetRootAsTableIndex(index, 0), 0
	for i := range list.OffsetsLength() {
		if !list.Offsets(&at, i) || int(at.Offset()) != end {
			return errTable
		}
		block := blocks[end:][:at.Len()]
		body, err := proved(block)
		if err != nil || sumOf(block, len(body)) != crc32.Checksum(body, castagnoli) {
			return errTable
		}
		end += len(block)
	}
	if end != len(blocks) || end == 0 {
		return errTable
	}
	return nil
}

// proved is data without the checksum at its end and that one's length.
func proved(data []byte) ([]byte, error) {
	if len(data) < 8 {
		return nil, errTable
	}
	n := binary.BigEndian.Uint32(data[len(data)-4:])
	if int64(n)+8 > int64(len(data)) {
		return nil, errTable
	}
	return data[:len(data)-4-int(n)], nil
}

// sumOf is the checksum behind the first n bytes of data: field 2 of a protobuf
// message whose field 1 is zero, for CRC-32C. It panics if it is not of that form.
func sumOf(data []byte, n int) uint32 {
	message := data[n : len(data)-4]
	if len(message) == 0 {
		return 0
	}
	v, size := binary.Uvarint(message[1:])
	if message[0] != 2<<3 || size != len(message)-1 || v != uint64(uint32(v)) {
		panic(errTable)
	}
	return uint32(v)
}

func slurp(path string, buf *bytes.Buffer) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		buf.Grow(int(min(info.Size(), 64<<20)) + bytes.MinRead)
	}
	buf.Reset()
	_, err = buf.ReadFrom(f)
	return buf.Bytes(), err
}

const (
	logHead   = 20 // bytes before the first entry of a log
	entryHead = 22 // bytes that the head of an entry can take
)

// checkLog makes a write-ahead log fit for Badger, which would take any length
// that it reads for good, and fails on an empty file. What comes after the first
// bad entry Badger ignores; whether something acknowledged was there, the version
// tells (openEngine).
func checkLog(path string) error {
	var buf bytes.Buffer
	data, err := slurp(path, &buf)
	if err != nil {
		return err
	}
	if len(data) < logHead { // killed while it was made
		return os.Remove(path)
	}
	if binary.BigEndian.Uint64(data) != 0 {
		return errors.New("it says that it is encrypted")
	}
	end := logHead
	for {
		n := entrySize(data[end:])
		if n == 0 {
			break
		}
		end += n
	}
	head := data[end:min(end+entryHead, len(data))]
	if strings.Trim(string(head), "\x00") == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, len(head)), int64(end))
	return errors.Join(err, f.Sync(), f.Close())
}

// entrySize is the size of the sound entry at the start of data, or 0: meta and
// user meta, the lengths of key and value, expiry, key, value, CRC-32C.
func entrySize(data []byte) int {
	r := bytes.NewReader(data)
	_, _ = r.Seek(2, io.SeekStart) // never fails
	key, err1 := binary.ReadUvarint(r)
	value, err2 := binary.ReadUvarint(r)
	_, err3 := binary.ReadUvarint(r)
	left := uint64(r.Len())
	if err1 != nil || err2 != nil || err3 != nil || key == 0 || key > left || value > left || key+value+sumSize > left {
		return 0
	}
	end := len(data) - int(left) + int(key+value)
	if binary.BigEndian.Uint32(data[end:]) != crc32.Checksum(data[:end], castagnoli) {
		return 0
	}
	return end + sumSize
}

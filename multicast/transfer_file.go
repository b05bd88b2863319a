package multicast

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// maxFileName is left for the name of a file; file systems allow 255 bytes.
const maxFileName = 200

// fileName makes a file name out of NORM_INFO, whatever it holds: its last path
// element without anything that hides a file or that a terminal obeys. It is
// empty if nothing is left.
func fileName(info []byte) string {
	name := strings.TrimRight(string(info), "\x00")
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		switch {
		case r < ' ', r == utf8.RuneError, r >= 0x7f && r < 0xa0, r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == ':':
			return '_'
		}
		return r
	}, name)
	name = strings.TrimSpace(strings.TrimLeft(name, ".- "))
	for len(name) > maxFileName {
		_, n := utf8.DecodeRuneInString(name)
		name = name[n:] // the end has the extension
	}
	return strings.TrimLeft(name, ".- ")
}

// incoming is the norm.Sink of one file: a hidden file in the directory, which
// gets its name when it is whole. All names are looked up below root.
type incoming struct {
	root  *os.Root
	file  *os.File
	tmp   string
	size  int64
	bytes int64 // written
	began time.Time

	gather gather
}

// newIncoming makes the hidden file.
func newIncoming(root *os.Root, size int64, pool *gatherPool, now time.Time) (*incoming, error) {
	in := &incoming{root: root, tmp: ".cistern-" + rand.Text(), size: size, began: now, gather: gather{pool: pool}}
	var err error
	if in.file, err = root.OpenFile(in.tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
		return nil, fmt.Errorf("make file: %w", err)
	}
	if err := in.file.Truncate(size); err != nil { // gaps are read as zeros
		return nil, errors.Join(fmt.Errorf("make file of %d bytes: %w", size, err), in.discard())
	}
	in.gather = gather{pool: pool, read: in.file.ReadAt, write: func(p []byte, r content.Range) error {
		_, err := in.file.WriteAt(p, r.Off)
		return err
	}}
	return in, nil
}

// WriteAt implements norm.Sink.
func (in *incoming) WriteAt(p []byte, off int64) (int, error) {
	r := content.Range{Off: off, End: off + int64(len(p))}
	if off < 0 || r.End > in.size {
		return 0, fmt.Errorf("write %s outside of file of %d bytes", r, in.size)
	}
	if err := in.gather.put(p, r); err != nil {
		return 0, err
	}
	in.bytes += int64(len(p))
	return len(p), nil
}

// ReadAt implements norm.Sink.
func (in *incoming) ReadAt(p []byte, off int64) (int, error) {
	return in.gather.get(p, content.Range{Off: off, End: off + int64(len(p))})
}

// keep gives the whole file its name. What had the name before is replaced.
func (in *incoming) keep(name string) error {
	err := errors.Join(in.gather.flush(), in.file.Close())
	if err == nil {
		err = in.root.Rename(in.tmp, name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep %s: %w", name, err), in.root.Remove(in.tmp))
	}
	return nil
}

// discard removes the file.
func (in *incoming) discard() error {
	in.gather.drop()
	return errors.Join(in.file.Close(), in.root.Remove(in.tmp))
}

// nameFor is the name for a file whose NORM_INFO gives none.
func nameFor(info []byte, key norm.ObjectKey) string {
	if name := fileName(info); name != "" {
		return name
	}
	return fmt.Sprintf("object-%d-%d", key.Source, key.Object)
}

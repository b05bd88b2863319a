package build

import (
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"time"
)

// node is a file of the initial file system.
type node struct {
	mode uint32 // with its type, as in cpio
	body []byte // of a symbolic link: where it points
}

// Types of nodes.
const (
	isDir  = 0o040000
	isFile = 0o100000
	isLink = 0o120000
)

// tree is the initial file system, by path without a leading slash. Directories
// are made as files need them.
type tree map[string]node

func (t tree) file(name string, mode uint32, body []byte) {
	t.parents(name)
	t[name] = node{isFile | mode, body}
}

func (t tree) link(name, target string) {
	t.parents(name)
	t[name] = node{isLink | 0o777, []byte(target)}
}

func (t tree) dir(name string, mode uint32) {
	t.parents(name)
	t[name] = node{isDir | mode, nil}
}

func (t tree) parents(name string) {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := t[dir]; !ok {
			t[dir] = node{isDir | 0o755, nil}
		}
	}
}

// cpio writes the tree in the form that the kernel unpacks ("newc",
// Documentation/driver-api/early-userspace/buffer-format.rst), the same for the
// same tree.
func (t tree) cpio(w io.Writer, date time.Time) error {
	put := func(ino int, name string, n node) error {
		head := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
			ino, n.mode, 0, 0, 1, date.Unix(), len(n.body), 0, 0, 0, 0, len(name)+1, 0)
		head += name + "\x00"
		for _, part := range [][]byte{[]byte(head), pad(len(head)), n.body, pad(len(n.body))} {
			if _, err := w.Write(part); err != nil {
				return fmt.Errorf("write the initial file system: %w", err)
			}
		}
		return nil
	}
	for i, name := range slices.Sorted(maps.Keys(t)) {
		if err := put(i+1, name, t[name]); err != nil {
			return err
		}
	}
	return put(0, "TRAILER!!!", node{})
}

// pad fills up to four bytes.
func pad(n int) []byte { return make([]byte, (4-n%4)%4) }

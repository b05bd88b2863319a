package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// denials are what must not be here. The list lies on every volume, so that it
// outlives each of them. Safe for concurrent use.
type denials struct {
	saving sync.Mutex // one writes the files at a time; taken before mu

	// mu guards what follows. It is not held over work on files.
	mu    sync.Mutex
	dirs  []string // of the volumes
	list  map[string]listed
	whole bool              // there are digests of whole files
	gone  map[uint64]Denial // objects that were removed since the start
	taken atomic.Bool       // there are such objects
}

// listed is a denial as it is kept.
type listed struct {
	Denial
	// Pending is set until the store was searched for what is denied: a crash may
	// come between.
	Pending bool `json:"pending,omitempty"`
}

// deniedList is the file. A bit that flips in it must not change what is denied.
type deniedList struct {
	Sum  uint32          `json:"sum"` // CRC-32C of List
	List json.RawMessage `json:"list"`
}

func sumOf(list []byte) uint32 { return crc32.Checksum(list, castagnoli) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	deniedFile = "denied.json"
	auditFile  = "audit.jsonl"
)

// openDenials reads the lists of all volumes, and of absent ones, which only are
// read. One that cannot be read stops the start: what was taken down must not come
// back because of a bad sector.
func openDenials(dirs, absent []string) (*denials, error) {
	d := &denials{dirs: dirs, list: map[string]listed{}, gone: map[uint64]Denial{}}
	var read []map[string]listed
	for _, dir := range slices.Concat(dirs, absent) {
		path := filepath.Join(dir, deniedFile)
		list, err := readDenials(path)
		if err != nil {
			return nil, fmt.Errorf("read the list of takedowns %s: %w", path, err)
		}
		read = append(read, list)
		d.merge(list)
	}
	for _, list := range read[:len(dirs)] {
		if len(d.list) > 0 && !reflect.DeepEqual(list, d.list) {
			_ = d.save() // what cannot be written now has what it had
			break
		}
	}
	return d, nil
}

// merge takes what is newer in a list; d.mu is held, or nobody else has d yet. A
// denial that was lifted stays as a mark, which outranks older lists.
func (d *denials) merge(list map[string]listed) {
	for what, n := range list {
		old, ok := d.list[what]
		if !ok || n.At.After(old.At) || n.At.Equal(old.At) && n.Pending {
			d.list[what] = n
		}
	}
	d.whole = false
	for what, n := range d.list {
		d.whole = d.whole || n.By != "" && strings.HasPrefix(what, "sha256:")
	}
}

// join takes in the list of a volume that was not there at the start, and keeps
// the list there from now on. The store is still to be searched for all of it.
func (d *denials) join(dir string, list map[string]listed) error {
	d.mu.Lock()
	d.merge(list)
	for what, n := range d.list {
		n.Pending = n.By != ""
		d.list[what] = n
	}
	none := len(d.list) == 0
	d.dirs = append(slices.Clip(d.dirs), dir)
	d.mu.Unlock()
	if none {
		return nil
	}
	return d.save()
}

// readDenials reads one list; none is an empty one.
func readDenials(path string) (list map[string]listed, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var file deniedList
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err == nil && sumOf(file.List) != file.Sum {
		err = errors.New("checksum is wrong")
	}
	if err == nil {
		err = json.Unmarshal(file.List, &list)
	}
	return list, err
}

// removed says why an object was taken down since the start; nil if it was not.
// Numbers are not given out twice.
func (d *denials) removed(num uint64) error {
	if !d.taken.Load() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, ok := d.gone[num]; ok {
		return n.refusal()
	}
	return nil
}

// remove notes that an object is to go.
func (d *denials) remove(num uint64, n Denial) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone[num] = n
	d.taken.Store(true)
}

// CheckDenial gives what is to be taken down its usual form, or says what is
// wrong with it.
func CheckDenial(what string) (usual string, err error) { return normalDenial(what) }

// normalDenial checks what is to be denied and gives it its usual form.
func normalDenial(what string) (string, error) {
	what = strings.TrimSpace(what)
	kind, hash, _ := strings.Cut(what, ":")
	switch {
	case kind == "btih":
		hash = strings.ToLower(hash)
		if b, err := hex.DecodeString(hash); err != nil || len(b) != 20 && len(b) != 32 {
			return "", fmt.Errorf("infohash %q: want 40 or 64 hexadecimal digits", hash)
		}
		return "btih:" + hash, nil
	case kind == "sha256":
		var h content.Hash
		if err := h.UnmarshalText([]byte(strings.ToLower(hash))); err != nil {
			return "", err
		}
		return "sha256:" + h.String(), nil
	}
	if id, err := content.ParseID(what); err == nil {
		return id.String(), nil
	}
	if err := CheckPattern(what); err != nil {
		return "", err
	}
	if !strings.Contains(what, ".") && !strings.Contains(what, "://") {
		return "", fmt.Errorf("%q is no URL, pattern of hosts, btih:<infohash>, sha256:<digest> or identity", what)
	}
	return what, nil
}

// check says whether a name or an identity was taken down.
func (d *denials) check(called string, id content.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for what, denial := range d.list {
		if denial.By == "" {
			continue
		}
		hit := false
		switch {
		case strings.HasPrefix(what, "btih:"):
			hit = called == what || strings.HasPrefix(called, what+"/")
		case strings.HasPrefix(what, "sha256:"):
		default:
			hit = !id.IsZero() && what == id.String() || Match(what, called)
		}
		if hit {
			return denial.refusal()
		}
	}
	return nil
}

func (n Denial) refusal() error {
	return fmt.Errorf("%w: %s, by %s on %s: %s", ErrDenied, n.What, n.By, n.At.Format(time.DateOnly), n.Why)
}

// digest makes the SHA-256 of a whole body, if somebody asked for one to be kept
// out; else it is nil.
func (d *denials) digest(body io.Reader) (*content.Hash, error) {
	d.mu.Lock()
	whole := d.whole
	d.mu.Unlock()
	if !whole {
		return nil, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, body); err != nil {
		return nil, fmt.Errorf("hash the whole: %w", err)
	}
	return (*content.Hash)(h.Sum(nil)), nil
}

// checkBody says whether bytes were taken down, by their identity or by what
// digest gave; it is errNoDigest if that is needed by now.
func (d *denials) checkBody(id content.ID, sum *content.Hash) error {
	if err := d.check("", id); err != nil {
		return err
	}
	if sum != nil {
		return d.checkSHA256(*sum)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.whole {
		return errNoDigest
	}
	return nil
}

func (d *denials) checkSHA256(sum content.Hash) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if denial, ok := d.list["sha256:"+sum.String()]; ok && denial.By != "" {
		return denial.refusal()
	}
	return nil
}

// set puts a denial on the list of every volume that can be written, and returns
// it with a time that is later than that of the one before.
func (d *denials) set(n listed) (Denial, error) {
	d.mu.Lock()
	if old := d.list[n.What]; !n.At.After(old.At) {
		n.At = old.At.Add(1)
	}
	d.list[n.What] = n
	d.whole = d.whole || n.By != "" && strings.HasPrefix(n.What, "sha256:")
	d.mu.Unlock()
	return n.Denial, d.save()
}

// settle says that the store was searched for what a denial is of, unless that
// was lifted or made anew meanwhile.
func (d *denials) settle(n Denial) error {
	d.mu.Lock()
	now := d.list[n.What]
	pending := now.Pending && now.At.Equal(n.At)
	if pending {
		d.list[n.What] = listed{Denial: n}
	}
	d.mu.Unlock()
	if !pending {
		return nil
	}
	return d.save()
}

// doubt says that bodies came into the store that nobody has searched: the
// digests of wholes are to be looked for again. The volume that they came with
// may not have heard of the last denials.
func (d *denials) doubt() error {
	d.mu.Lock()
	none := len(d.list) == 0
	for what, n := range d.list {
		if n.By != "" && strings.HasPrefix(what, "sha256:") {
			n.Pending = true
			d.list[what] = n
		}
	}
	d.mu.Unlock()
	if none {
		return nil
	}
	return d.save()
}

// pending lists the denials that the store was not searched for.
func (d *denials) pending() (all []Denial) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.list {
		if n.Pending && n.By != "" {
			all = append(all, n.Denial)
		}
	}
	return all
}

// save writes the list to every volume; one that takes it is enough.
func (d *denials) save() error {
	d.saving.Lock()
	defer d.saving.Unlock()
	d.mu.Lock()
	list := encode(d.list)
	d.mu.Unlock()
	text := append(encode(deniedList{sumOf(list), list}), '\n')
	return d.everywhere("write the list of takedowns", func(dir string) error {
		return replaceFile(filepath.Join(dir, deniedFile), text)
	})
}

// everywhere does something on every volume. It fails if none takes it.
func (d *denials) everywhere(what string, do func(dir string) error) error {
	var failed []error
	d.mu.Lock()
	dirs := d.dirs
	d.mu.Unlock()
	for _, dir := range dirs {
		if err := do(dir); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", what, err))
		}
	}
	if len(failed) == len(dirs) {
		return errors.Join(failed...)
	}
	return nil
}

// replaceFile writes a file so that a crash leaves the old or the new one.
func replaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

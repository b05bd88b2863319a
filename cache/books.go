package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
	"github.com/cistern-edge/cistern/cache/index"
)

// The index holds, each under a letter:
//
//	o <number>       the entry of an object
//	d <number>       its record
//	n <hash>         a name, and the object it stands for
//	i <root> <size>  an identity, and the complete public object that has it
//	m <word>         settings of the store
const (
	entryPrefix    = 'o'
	recordPrefix   = 'd'
	namePrefix     = 'n'
	identityPrefix = 'i'
	settingPrefix  = 'm'
)

// An object's names are bounded in number and, together, in bytes: the oldest go
// when one more comes. A name and what is kept with it are bounded too.
const (
	maxNames     = 64
	maxNameBytes = 32 << 10
	maxName      = 16 << 10
	maxMeta      = 32 << 10
	maxTitle     = 1 << 10
)

// checkName says whether the index can hold a name.
func checkName(called string, meta []byte) error {
	switch {
	case len(called) > maxName:
		return fmt.Errorf("name of %d bytes; %d is the most", len(called), maxName)
	case len(meta) > maxMeta:
		return fmt.Errorf("%d bytes to be kept with the name; %d is the most", len(meta), maxMeta)
	case !utf8.ValidString(called):
		return fmt.Errorf("name %q is not UTF-8", clip(called, 100))
	}
	return nil
}

// clip cuts text that is for people to at most max bytes.
func clip(text string, max int) string {
	if len(text) > max {
		text = text[:max]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

func numKey(prefix byte, num uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, num)
}

// nameKey is a hash: names may be longer than a key can be.
func nameKey(n string) []byte {
	sum := sha256.Sum256([]byte(n))
	return append([]byte{namePrefix}, sum[:16]...)
}

func identityKey(id content.ID) []byte {
	return binary.BigEndian.AppendUint64(append([]byte{identityPrefix}, id.Root[:]...), uint64(id.Size))
}

func settingKey(word string) []byte { return append([]byte{settingPrefix}, word...) }

// books are the index as the store sees it, with what was read lately in
// memory. Safe for concurrent use; changes of one object must not overlap
// (Store.edit).
type books struct {
	index   *index.Index
	log     *slog.Logger
	records *ram[uint64, *record]
	names   *ram[string, *name]
	// moving is where small objects lie that were appended anew and not flushed
	// since: a power cut must find the index pointing there. Store.mu guards it.
	moving map[uint64]disk.Place
}

// What a record and a name take in memory beside their text, in bytes, about: the
// item of the cache, and a record's lists and maps.
const (
	recordWeight = 800
	nameWeight   = 300
)

// record reads the record of an object; nil if it has none.
func (b *books) record(num uint64) *record {
	r0, gen, ok := b.records.get(num)
	if ok {
		return r0
	}
	value, err := b.index.Get(numKey(recordPrefix, num))
	if errors.Is(err, index.ErrNotFound) {
		return nil
	}
	var r *record
	if err == nil {
		r, err = decodeRecord(value)
	}
	if err != nil {
		b.log.Warn("failed to read the record of an object", "object", num, "err", err)
		return nil
	}
	b.records.offer(num, r, int64(len(value))+recordWeight, gen)
	return r
}

// named reads what a name stands for; nil if it stands for nothing.
func (b *books) named(called string) *name {
	n0, gen, ok := b.names.get(called)
	if ok {
		return n0
	}
	value, err := b.index.Get(nameKey(called))
	if err != nil {
		return nil
	}
	n, err := decodeName(value)
	if err != nil || n.Name != called {
		return nil
	}
	b.names.offer(called, n, int64(len(value))+nameWeight, gen)
	return n
}

// identified finds the object that has an identity.
func (b *books) identified(id content.ID) (uint64, bool) {
	value, err := b.index.Get(identityKey(id))
	if err != nil || len(value) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(value), true
}

// union is the change that gives an object's names and figures to its twin, and
// takes the object out; r is its record. It returns the record of both, nil if
// that of the twin cannot be read.
func (b *books) union(ed *edit, num uint64, r *record, twin uint64) *record {
	of := b.record(twin)
	if of == nil {
		return nil
	}
	to := of.clone()
	for _, called := range r.Names {
		n := b.named(called)
		if n == nil || n.Num != num {
			continue
		}
		for _, pushed := range to.add(called) {
			ed.dropName(pushed)
		}
		ed.name(&name{Num: twin, Name: called, Meta: n.Meta})
	}
	for source, n := range r.From {
		to.From[source] += n
	}
	for outlet, n := range r.Served {
		to.Served[outlet] += n
	}
	ed.drop(numKey(entryPrefix, num))
	ed.drop(numKey(recordPrefix, num))
	ed.after = append(ed.after, func() { b.records.drop(num) })
	ed.record(twin, to)
	return to
}

// owns reports whether the identity in an object's record leads to the object.
func (b *books) owns(num uint64, r *record) bool {
	if r == nil {
		return false
	}
	at, ok := b.identified(r.ID)
	return ok && at == num
}

// setting reads a setting into a value; it is left alone if there is none.
func (b *books) setting(word string, into any) error {
	value, err := b.index.Get(settingKey(word))
	if errors.Is(err, index.ErrNotFound) || errors.Is(err, index.ErrDamaged) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read setting %s: %w", word, err)
	}
	if err := json.Unmarshal(value, into); err != nil {
		return fmt.Errorf("read setting %s: %w", word, err)
	}
	return nil
}

// edit is a change of the books that happens as a whole or not at all, unless it
// is of more objects than the index takes at once. Nobody sees any of it before
// done.
type edit struct {
	books *books
	ops   []index.Op
	after []func() // what memory has read lately must not outlive the change
}

func (b *books) edit() *edit { return &edit{books: b} }

func (ed *edit) set(key, value []byte) { ed.ops = append(ed.ops, index.Op{Key: key, Value: value}) }

func (ed *edit) drop(key []byte) { ed.ops = append(ed.ops, index.Op{Key: key, Delete: true}) }

// entry saves an entry; Store.mu is held.
func (ed *edit) entry(e *entry) {
	saved := *e
	if place, ok := ed.books.moving[e.num()]; ok {
		saved.place = place
	}
	ed.set(numKey(entryPrefix, e.num()), saved.encode())
}

func (ed *edit) record(num uint64, r *record) {
	value := r.encode()
	if len(value) > index.MaxValue { // what is only for people goes first
		r = r.clone()
		r.Parts, r.From, r.Served = nil, nil, nil
		value = r.encode()
	}
	ed.set(numKey(recordPrefix, num), value)
	ed.after = append(ed.after, func() { ed.books.records.put(num, r, int64(len(value))+recordWeight) })
}

func (ed *edit) name(n *name) {
	value := n.encode()
	ed.set(nameKey(n.Name), value)
	ed.after = append(ed.after, func() { ed.books.names.put(n.Name, n, int64(len(value))+nameWeight) })
}

func (ed *edit) dropName(called string) {
	ed.drop(nameKey(called))
	ed.after = append(ed.after, func() { ed.books.names.drop(called) })
}

func (ed *edit) identity(id content.ID, num uint64) {
	ed.set(identityKey(id), binary.BigEndian.AppendUint64(nil, num))
}

func (ed *edit) setting(word string, v any) { ed.set(settingKey(word), encode(v)) }

// object forgets an object, and the names and the identity that are its own.
func (ed *edit) object(num uint64) {
	if r := ed.books.record(num); r != nil {
		for _, called := range r.Names {
			if n := ed.books.named(called); n != nil && n.Num == num {
				ed.dropName(called)
			}
		}
		if ed.books.owns(num, r) {
			ed.drop(identityKey(r.ID))
		}
	}
	ed.drop(numKey(entryPrefix, num))
	ed.drop(numKey(recordPrefix, num))
	ed.after = append(ed.after, func() { ed.books.records.drop(num) })
}

// done hands the change to the index.
func (ed *edit) done() {
	if len(ed.ops) == 0 {
		return
	}
	for ops := ed.ops; len(ops) > 0; {
		n := fitting(ops)
		if err := ed.books.index.Update(ops[:n]...); err != nil {
			ed.books.log.Error("failed to change the index", "err", err)
		}
		ops = ops[n:]
	}
	for _, f := range ed.after {
		f()
	}
}

// fitting is how many operations the index takes as one. More than that are
// changes of many objects, which need not happen together.
func fitting(ops []index.Op) int {
	bytes := 0
	for i, op := range ops {
		bytes += len(op.Key) + len(op.Value)
		if i > 0 && (i >= index.MaxOps || bytes > index.MaxUpdate) {
			return i
		}
	}
	return len(ops)
}

// encode makes JSON of what is known to have a form in it. Addresses are full of
// "&", which must not take six bytes each.
func encode(v any) []byte {
	var b bytes.Buffer
	to := json.NewEncoder(&b)
	to.SetEscapeHTML(false)
	if err := to.Encode(v); err != nil {
		panic(fmt.Sprintf("cache: encode %T: %v", v, err)) // cannot be, for types of this package
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// scan goes through what the index has under a prefix.
func (b *books) scan(prefix byte, use func(key, value []byte) bool) error {
	_, err := b.index.Scan([]byte{prefix}, []byte{prefix + 1}, use)
	return err
}

// eachName goes through the names of all objects.
func (b *books) eachName(use func(n name)) error {
	return b.scan(namePrefix, func(_, value []byte) bool {
		if n, err := decodeName(value); err == nil {
			use(*n)
		}
		return true
	})
}

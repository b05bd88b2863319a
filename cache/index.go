package cache

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/cistern-edge/cistern/cache/content"
)

// record is what the index keeps of an object.
type record struct {
	Num      uint64            `json:"num"`
	ID       content.ID        `json:"id,omitzero"`
	Promised content.ID        `json:"promised,omitzero"`
	Size     int64             `json:"size"`
	Here     int64             `json:"here,omitempty"` // bytes, when the size is unknown
	Complete bool              `json:"complete,omitempty"`
	Trust    content.Trust     `json:"trust,omitempty"`
	Public   bool              `json:"public,omitempty"`
	Pinned   bool              `json:"pinned,omitempty"`
	Title    string            `json:"title"`
	Created  time.Time         `json:"created"`
	Used     time.Time         `json:"used"`
	Names    map[string][]byte `json:"names"`
	From     map[string]int64  `json:"from"`
	Served   map[string]int64  `json:"served"`
}

// reserved is how much room the object counts for.
func (r *record) reserved() int64 {
	if r.Size < 0 {
		return r.Here
	}
	return r.Size
}

// index keeps records in Badger, each with a checksum of its own: a flipped bit
// in Badger's value log can come back as a wrong value without an error.
type index struct{ db *badger.DB }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openIndex opens Badger with a small memory profile. Values stay in its tree,
// for nothing reclaims a value log that is rewritten all the time.
func openIndex(dir string, small bool) (ix *index, err error) {
	defer damaged(&err)
	opt := badger.DefaultOptions(dir).WithLogger(nil).WithMetricsEnabled(false).
		WithNumCompactors(2).WithNumMemtables(2).WithMemTableSize(8 << 20).
		WithBlockCacheSize(0).WithCompression(0).WithIndexCacheSize(8 << 20).
		WithValueLogFileSize(64 << 20).WithValueThreshold(1 << 20)
	if small {
		opt = opt.WithMemTableSize(2 << 20).WithIndexCacheSize(1 << 20).WithValueLogFileSize(4 << 20).WithValueThreshold(256 << 10)
	}
	db, err := badger.Open(opt)
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", dir, err)
	}
	return &index{db}, nil
}

// damaged turns a panic into an error: Badger panics on some flipped bits.
func damaged(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("index is damaged: %v", p)
	}
}

func (ix *index) close() error { return ix.db.Close() }

func (ix *index) sync() error {
	if err := ix.db.Sync(); err != nil {
		return fmt.Errorf("sync index: %w", err)
	}
	return nil
}

// recordKey is 'o' and the number, so that records sort by age.
func recordKey(num uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'o'}, num) }

// sealed is a value of the index: JSON behind its checksum.
func sealed(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(body, castagnoli)), body...), nil
}

// unseal reads what sealed wrote.
func unseal(value []byte, into any) error {
	if len(value) < 4 || binary.BigEndian.Uint32(value) != crc32.Checksum(value[4:], castagnoli) {
		return errors.New("checksum does not match")
	}
	return json.Unmarshal(value[4:], into)
}

func encode(r *record) ([]byte, error) {
	value, err := sealed(r)
	if err != nil {
		return nil, fmt.Errorf("encode record of object %d: %w", r.Num, err)
	}
	return value, nil
}

func decode(key, value []byte) (*record, error) {
	if len(key) != 9 {
		return nil, fmt.Errorf("index record %x: no number", key)
	}
	var r record
	if err := unseal(value, &r); err != nil {
		return nil, fmt.Errorf("index record %x: %w", key, err)
	}
	if r.Num != binary.BigEndian.Uint64(key[1:]) {
		return nil, fmt.Errorf("index record %x: is for object %d", key, r.Num)
	}
	if r.Names == nil {
		r.Names = map[string][]byte{}
	}
	if r.From == nil {
		r.From = map[string]int64{}
	}
	if r.Served == nil {
		r.Served = map[string]int64{}
	}
	return &r, nil
}

// put saves records in one transaction.
func (ix *index) put(records ...*record) error {
	if len(records) == 0 {
		return nil
	}
	batch := ix.db.NewWriteBatch()
	defer batch.Cancel()
	for _, r := range records {
		value, err := encode(r)
		if err != nil {
			return err
		}
		if err := batch.Set(recordKey(r.Num), value); err != nil {
			return fmt.Errorf("save record of object %d: %w", r.Num, err)
		}
	}
	if err := batch.Flush(); err != nil {
		return fmt.Errorf("save records: %w", err)
	}
	return nil
}

// merge saves twin and forgets spare at once.
func (ix *index) merge(twin *record, spare uint64) error {
	value, err := encode(twin)
	if err != nil {
		return err
	}
	err = ix.db.Update(func(tx *badger.Txn) error {
		return errors.Join(tx.Set(recordKey(twin.Num), value), tx.Delete(recordKey(spare)))
	})
	if err != nil {
		return fmt.Errorf("merge object %d into %d: %w", spare, twin.Num, err)
	}
	return nil
}

// totalsKey is where the figures of objects that are gone are kept.
var totalsKey = []byte{'t'}

// drop forgets a record and saves what the objects that are gone add up to.
func (ix *index) drop(num uint64, gone totals) (err error) {
	defer damaged(&err)
	value, err := sealed(gone)
	if err != nil {
		return fmt.Errorf("encode totals: %w", err)
	}
	err = ix.db.Update(func(tx *badger.Txn) error {
		return errors.Join(tx.Delete(recordKey(num)), tx.Set(totalsKey, value))
	})
	if err != nil {
		return fmt.Errorf("drop record of object %d: %w", num, err)
	}
	return nil
}

// gone reads what drop saved; damaged totals count as none.
func (ix *index) gone() (t totals, err error) {
	defer damaged(&err)
	t = newTotals()
	err = ix.db.View(func(tx *badger.Txn) error {
		item, err := tx.Get(totalsKey)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		value, err := item.ValueCopy(nil)
		if err == nil && (unseal(value, &t) != nil || t.Filled == nil || t.Served == nil) {
			t = newTotals()
		}
		return err
	})
	if err != nil {
		return t, fmt.Errorf("read totals: %w", err)
	}
	return t, nil
}

// each reads every sound record. The others are dropped, and counted.
func (ix *index) each(use func(*record)) (bad int, err error) {
	defer damaged(&err)
	var drop [][]byte
	err = ix.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.IteratorOptions{PrefetchValues: true, PrefetchSize: 100, Prefix: []byte{'o'}})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := it.Item().KeyCopy(nil)
			value, err := it.Item().ValueCopy(nil)
			if err != nil {
				drop = append(drop, key)
				continue
			}
			r, err := decode(key, value)
			if err != nil {
				drop = append(drop, key)
				continue
			}
			use(r)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read index: %w", err)
	}
	batch := ix.db.NewWriteBatch()
	defer batch.Cancel()
	for _, key := range drop {
		if err := batch.Delete(key); err != nil {
			return 0, fmt.Errorf("drop damaged record: %w", err)
		}
	}
	return len(drop), batch.Flush()
}

package index

import (
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// ReadFormat1 reads the index of a store of format 1, which was Badger alone,
// and hands each key and value to use, in order. It changes nothing that format
// 1 would mind. A fault of the files is an error, never a panic.
func ReadFormat1(dir string, use func(key, value []byte)) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("read index of format 1: %v", p)
		}
	}()
	db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil).WithMetricsEnabled(false).
		WithNumMemtables(2).WithMemTableSize(8 << 20).WithBlockCacheSize(0).WithCompression(0).
		WithValueLogFileSize(64 << 20).WithValueThreshold(1 << 20))
	if err != nil {
		return fmt.Errorf("read index of format 1: %w", err)
	}
	defer db.Close()
	err = db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			value, err := it.Item().ValueCopy(nil)
			if err != nil {
				continue // a record that cannot be read is as good as none
			}
			use(it.Item().KeyCopy(nil), value)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read index of format 1: %w", err)
	}
	return nil
}

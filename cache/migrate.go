package cache

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/disk"
	"github.com/cistern-edge/cistern/cache/index"
)

// Format 1 had one volume without a marker, sidecars without cards, and an index
// of one JSON record for each object with a CRC-32C in front. The way to format
// 2 can be gone again after a crash at any point: the new index is written
// beside the old one, then the sidecars, whose marker comes last, and only then
// the indexes change places.
const (
	newIndex = "index.new"
	oldIndex = "index.format1"
)

// record1 is a record of format 1.
type record1 struct {
	Num      uint64            `json:"num"`
	ID       content.ID        `json:"id"`
	Promised content.ID        `json:"promised"`
	Size     int64             `json:"size"`
	Here     int64             `json:"here"`
	Complete bool              `json:"complete"`
	Trust    content.Trust     `json:"trust"`
	Public   bool              `json:"public"`
	Pinned   bool              `json:"pinned"`
	Title    string            `json:"title"`
	Created  time.Time         `json:"created"`
	Used     time.Time         `json:"used"`
	Names    map[string][]byte `json:"names"`
	From     map[string]int64  `json:"from"`
	Served   map[string]int64  `json:"served"`
}

// migrate turns a store of an older format into one of today's.
func migrate(cfg Config, log *slog.Logger) error {
	at := func(name string) string { return filepath.Join(cfg.Dir, name) }
	if isThere(at("blobs")) && !isThere(at("volume.json")) && isThere(at("index")) {
		if err := os.RemoveAll(at(newIndex)); err != nil {
			return fmt.Errorf("migrate the store: %w", err)
		}
		start := time.Now()
		objects, err := migrate1(cfg, log)
		if err != nil {
			return fmt.Errorf("migrate the store from format 1: %w", err)
		}
		log.Info("migrated the store to format 2", "objects", objects, "took", time.Since(start))
	}
	if !isThere(at(newIndex)) {
		return nil
	}
	var err error
	if isThere(at("index")) {
		err = errors.Join(os.RemoveAll(at(oldIndex)), os.Rename(at("index"), at(oldIndex)))
	}
	if err = errors.Join(err, os.Rename(at(newIndex), at("index")), os.RemoveAll(at(oldIndex))); err != nil {
		return fmt.Errorf("migrate the store: put the new index in place: %w", err)
	}
	return nil
}

// migrate1 writes the new index and the new sidecars.
func migrate1(cfg Config, log *slog.Logger) (objects int, err error) {
	ix, err := index.Open(index.Config{Dir: filepath.Join(cfg.Dir, newIndex), Small: cfg.Small}, log)
	if err != nil {
		return 0, err
	}
	b := &books{index: ix, log: log, records: newRAM[uint64, *record](cfg.RAM/4 + 1), names: newRAM[string, *name](cfg.RAM/4 + 1)}
	sums := totals{Filled: map[string]int64{}, Served: map[string]int64{}}
	var next uint64
	err = index.ReadFormat1(filepath.Join(cfg.Dir, "index"), func(key, value []byte) {
		if len(value) < 4 || binary.BigEndian.Uint32(value) != crc32.Checksum(value[4:], crc32.MakeTable(crc32.Castagnoli)) {
			log.Warn("dropped a damaged record of format 1", "object", numOf(key))
			return
		}
		if string(key) == "t" {
			var gone totals
			if json.Unmarshal(value[4:], &gone) == nil {
				sums.plus(gone.Filled, gone.Served)
			}
			return
		}
		var r record1
		if json.Unmarshal(value[4:], &r) != nil || len(key) != 9 || r.Num != numOf(key) {
			return
		}
		b.take1(&r)
		sums.plus(r.From, r.Served)
		next = max(next, r.Num+1)
		objects++
	})
	if err == nil {
		ed := b.edit()
		ed.setting("totals", sums)
		ed.setting("numbers", next+numberStep)
		ed.done()
		err = ix.Commit(context.Background())
	}
	if err == nil {
		_, _, err = disk.MigrateV1(cfg.Dir, b.card1)
	}
	if err == nil {
		err = b.knowVolume(cfg.Dir, log)
	}
	return objects, errors.Join(err, ix.Close())
}

// take1 writes what format 1 knew of an object into the new books.
func (b *books) take1(r *record1) {
	e := &entry{size: max(r.Size, content.UnknownSize), here: max(r.Here, 0), used: r.Used.Unix(), trust: uint8(r.Trust)}
	names := slices.Sorted(maps.Keys(r.Names))
	e.node.Num = r.Num
	if len(names) > 0 {
		e.node.Ghost = ghostOf(names[0])
	}
	e.set(isComplete, r.Complete)
	e.set(isPublic, r.Public)
	e.set(isPinned, r.Pinned)
	to := &record{
		ID: r.ID, Promised: r.Promised, Title: r.Title, Created: r.Created,
		From: cloneCounts(r.From), Served: cloneCounts(r.Served),
	}
	ed := b.edit()
	for _, called := range names {
		if checkName(called, r.Names[called]) != nil {
			continue
		}
		for _, pushed := range to.add(called) {
			ed.dropName(pushed)
		}
		ed.name(&name{Num: r.Num, Name: called, Meta: r.Names[called]})
	}
	ed.entry(e)
	ed.record(r.Num, to)
	if r.Complete && r.Public && r.Size > 0 {
		ed.identity(r.ID, r.Num)
	}
	ed.done()
}

// card1 writes the card of an object that has none yet.
func (b *books) card1(num uint64) []byte {
	value, err := b.index.Get(numKey(entryPrefix, num))
	r := b.record(num)
	var e entry
	if err != nil || r == nil {
		return nil
	}
	if _, err := e.decode(numKey(entryPrefix, num), value); err != nil {
		return nil
	}
	return b.card(&e, r)
}

// knowVolume tells the new index which volume its objects are on.
func (b *books) knowVolume(dir string, log *slog.Logger) error {
	v, err := disk.Open(dir, log)
	if err != nil {
		return err
	}
	ed := b.edit()
	ed.setting("volumes", map[string]uint8{v.ID(): 0})
	ed.done()
	return errors.Join(b.index.Commit(context.Background()), v.Close())
}

// plus adds figures.
func (t totals) plus(filled, served map[string]int64) {
	for source, n := range filled {
		t.Filled[kindOf(source)] += n
	}
	for outlet, n := range served {
		t.Served[outlet] += n
	}
}

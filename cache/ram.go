package cache

import (
	"sync"

	"github.com/cistern-edge/cistern/cache/evict"
)

// ram keeps values in memory up to a bound of bytes. What leaves first is said
// by the same policy as for bodies. Safe for concurrent use.
type ram[K comparable, V any] struct {
	max int64

	// mu guards what follows.
	mu    sync.Mutex
	next  uint64
	gen   uint64 // counts changes: what was read before one must not overwrite it
	items map[K]*item[K, V]
	keys  map[uint64]K
	queue *evict.Queue
}

type item[K comparable, V any] struct {
	node  evict.Node
	value V
}

func newRAM[K comparable, V any](max int64) *ram[K, V] {
	return &ram[K, V]{max: max, items: map[K]*item[K, V]{}, keys: map[uint64]K{}, queue: evict.New(max)}
}

// get finds a value. If there is none, gen goes to offer with what was read
// elsewhere.
func (r *ram[K, V]) get(key K) (v V, gen uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	it, ok := r.items[key]
	if !ok {
		return v, r.gen, false
	}
	r.queue.Hit(&it.node)
	return it.value, r.gen, true
}

// offer keeps a value that was read elsewhere, unless something has changed
// since gen.
func (r *ram[K, V]) offer(key K, v V, cost int64, gen uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gen == gen {
		r.keep(key, v, cost)
	}
}

// put keeps a value that counts for cost bytes, in the place of the key's last.
func (r *ram[K, V]) put(key K, v V, cost int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gen++
	r.keep(key, v, cost)
}

// keep is put; r.mu is held.
func (r *ram[K, V]) keep(key K, v V, cost int64) {
	if it, ok := r.items[key]; ok {
		it.value = v
		r.queue.Resize(&it.node, cost)
	} else if cost <= r.max {
		r.next++
		it := &item[K, V]{node: evict.Node{Num: r.next, Ghost: r.next}, value: v}
		r.items[key], r.keys[r.next] = it, key
		r.queue.Add(&it.node, cost)
	}
	for r.queue.Bytes() > r.max {
		n := r.queue.Victim(func(*evict.Node) bool { return false })
		if n == nil {
			return
		}
		r.queue.Evict(n)
		delete(r.items, r.keys[n.Num])
		delete(r.keys, n.Num)
	}
}

func (r *ram[K, V]) drop(key K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gen++
	if it, ok := r.items[key]; ok {
		r.queue.Remove(&it.node)
		delete(r.items, key)
		delete(r.keys, it.node.Num)
	}
}

package multicast

import (
	"context"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/multicast/norm"
)

// demand knows which agents wait for which objects.
type demand struct {
	// mu guards what follows.
	mu      sync.Mutex
	objects map[uint64]map[norm.NodeID]interest
	asking  map[norm.NodeID]int // questions of an agent that wait for their answer
	swept   time.Time
}

func newDemand() demand {
	return demand{objects: map[uint64]map[norm.NodeID]interest{}, asking: map[norm.NodeID]int{}}
}

// maxAsking bounds the questions of one agent that wait at once; each is looked
// at 20 times a second.
const maxAsking = 256

// begin counts a question of an agent; it returns false if there are too many.
func (d *demand) begin(node norm.NodeID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asking[node] >= maxAsking {
		return false
	}
	d.asking[node]++
	return true
}

// end counts a question as answered.
func (d *demand) end(node norm.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asking[node]--; d.asking[node] == 0 {
		delete(d.asking, node)
	}
}

// interest is one agent's in one object.
type interest struct{ since, seen time.Time }

// interestHolds is how long an agent that was told to ask again still counts.
const interestHolds = 3 * time.Second

// note says that the agent waits for the object, and tells since when, and who
// waits for it in all.
func (d *demand) note(num uint64, node norm.NodeID, now time.Time) (since time.Time, all []norm.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	waiting := d.objects[num]
	if waiting == nil {
		waiting = map[norm.NodeID]interest{}
		d.objects[num] = waiting
	}
	mine, ok := waiting[node]
	if !ok {
		mine.since = now
	}
	mine.seen = now
	waiting[node] = mine
	d.sweep(now)
	for n := range waiting {
		all = append(all, n)
	}
	return mine.since, all
}

// sweep forgets agents that have not asked again; d.mu is held.
func (d *demand) sweep(now time.Time) {
	if now.Sub(d.swept) < time.Second {
		return
	}
	d.swept = now
	for num, waiting := range d.objects {
		for n, i := range waiting {
			if now.Sub(i.seen) > interestHolds {
				delete(waiting, n)
			}
		}
		if len(waiting) == 0 {
			delete(d.objects, num)
		}
	}
}

// forget says that the agent waits no more.
func (d *demand) forget(num uint64, node norm.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.objects[num], node)
	if len(d.objects[num]) == 0 {
		delete(d.objects, num)
	}
}

// settle waits until it is clear how an object goes to the agent.
func (d *Desk) settle(ctx context.Context, a Agent, num uint64) (v verdict, reason string) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	hold := time.NewTimer(d.cfg.Hold)
	defer hold.Stop()
	for {
		v, reason = d.decide(ctx, a, num, time.Now())
		if v != verdictWait {
			d.demand.forget(num, a.Node)
			return v, reason
		}
		select {
		case <-tick.C:
		case <-hold.C:
			return verdictWait, reason // it still counts while it asks again
		case <-ctx.Done():
			d.demand.forget(num, a.Node)
			return verdictWait, "the agent has gone"
		}
	}
}

// decide is the policy, see DeskConfig.
func (d *Desk) decide(ctx context.Context, a Agent, num uint64, now time.Time) (verdict, string) {
	info, ok := d.store.Get(num)
	switch {
	case !ok:
		return verdictGone, "the object has gone"
	case !info.Complete && !info.Filling:
		return verdictBypass, "the object is not coming in"
	case !info.Public:
		return verdictBypass, "the object is for its client alone"
	case info.Complete && info.Size < d.cfg.MinSize:
		return verdictHTTP, "the object is small"
	case info.Size >= 0 && info.Size < d.cfg.MinSize:
		return verdictBypass, "the object is small and not here yet"
	case d.caster.joinable(num):
		return d.cast(ctx, num, []norm.NodeID{a.Node})
	}
	since, all := d.demand.note(num, a.Node, now)
	switch {
	case len(all) >= d.cfg.MinAgents && info.Complete:
		return d.cast(ctx, num, all)
	case len(all) >= d.cfg.MinAgents:
		return verdictWait, "a cast is due when the object is whole"
	case now.Sub(since) < d.grace(info.Size):
		return verdictWait, "others may want it too"
	case info.Complete:
		return verdictHTTP, "nobody else wants it now"
	default:
		return verdictBypass, "nobody else wants it now, and it is not whole yet"
	}
}

// cast puts the object on air, or adds to those expected if it is there.
func (d *Desk) cast(ctx context.Context, num uint64, nodes []norm.NodeID) (verdict, string) {
	if err := d.caster.Cast(ctx, num, nodes...); err != nil {
		return verdictHTTP, err.Error()
	}
	return verdictCast, "several agents want it"
}

// grace is how long the first agent that wants an object waits for others.
func (d *Desk) grace(size int64) time.Duration {
	takes := time.Duration(float64(max(size, 0)*8) / float64(d.caster.cfg.Rate) * float64(time.Second))
	return min(max(d.cfg.Grace, takes/10), 10*d.cfg.Grace)
}

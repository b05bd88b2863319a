package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// orders are what the parent tells a child on its standard input.
type orders struct {
	Config Config
	Seed   uint64
	Ledger *ledger
	// Audit is whether the child first looks at what it finds.
	Audit bool
	// Large is the size of the fills that run all the time.
	Large int64
}

// life is a child: several clients at work upon one store until it is killed.
type life struct {
	orders
	store *Store

	mu sync.Mutex // guards what is said: a line at a time
}

// childEnv in the environment makes the test binary a child.
const childEnv = "CISTERN_CRASH_CHILD"

// live is main of a child.
func live() {
	c := &life{}
	err := json.NewDecoder(os.Stdin).Decode(&c.orders)
	if err == nil {
		c.store, err = Open(c.Config, slog.New(slog.DiscardHandler))
	}
	if err != nil {
		c.wrong("open: %v", err)
		os.Exit(1)
	}
	if c.Audit {
		c.say(event{What: "report", Report: audit(c.store, c.Ledger)})
	}
	c.say(event{What: "ready"})
	go func() { _ = c.store.Run(context.Background()) }()
	for i := range 3 {
		go newClient(c, i).run()
	}
	go c.fillLarge(0, c.Large)
	go c.fillLarge(1, content.UnknownSize)
	go c.fillSmall()
	go c.fillTwins()
	time.Sleep(time.Minute) // the parent kills it long before
	os.Exit(1)
}

// say tells the parent. The kernel keeps it whatever becomes of the child.
func (c *life) say(e event) {
	line, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
		os.Exit(1)
	}
}

func (c *life) wrong(format string, args ...any) {
	c.say(event{What: "report", Report: report{Faults: []string{"at work: " + fmt.Sprintf(format, args...)}}})
}

func (c *life) rand(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(c.Seed, stream)) }

// fetch starts or resumes the fill of a name; nil if there is no room for it.
func (c *life) fetch(called, title string, size int64) *Fill {
	var f *Fill
	var err error
	if info, _, ok := c.store.Lookup(called); ok {
		f, err = c.store.OpenFill(info.Num, nil)
	} else {
		f, err = c.store.Create(Spec{Object: content.Object{Size: size}, Title: title, Public: true}, called, []byte(title))
	}
	if err != nil {
		c.expect("fetch", err)
		return nil
	}
	return f
}

// expect lets pass what clients at odds may see, and nothing else.
func (c *life) expect(what string, err error) {
	for _, fine := range []error{nil, ErrNotFound, ErrIncomplete, ErrDenied, content.ErrFull, content.ErrNotHere} {
		if errors.Is(err, fine) {
			return
		}
	}
	if !strings.Contains(err.Error(), "was evicted") {
		c.wrong("%s: %v", what, err)
	}
}

// finish runs a fill to its end.
func (c *life) finish(f *Fill, title string, chunk int64) bool {
	if len(title)%2 == 0 { // as a swarm does
		f.HashLate()
	}
	f.Start(from("memory", contentOf(title), chunk))
	<-f.Done()
	c.expect("fill", f.Err())
	return f.Err() == nil
}

// read reads a whole object as a client would.
func (c *life) read(info Info) {
	r, err := c.store.Read(info.Num)
	if err == nil {
		defer r.Close()
		_, err = r.WriteRange(context.Background(), newComparer(info.Title), content.Range{End: info.Size})
	}
	c.expect("read "+info.Title, err)
}

// fillLarge fills one large object after the other and says how much of each was
// accepted. It has a block brought at a time, so that all that is accepted can
// be durable.
func (c *life) fillLarge(i int, size int64) {
	called := fmt.Sprintf("http://large.example/%d", i)
	for rng := c.rand(uint64(100 + i)); ; {
		title := titleOf(rng.Uint64(), c.Large)
		if info, _, ok := c.store.Lookup(called); ok {
			title = info.Title
			if info.Complete {
				c.read(info)
				c.expect("evict", c.store.Evict(info.Num))
				continue
			}
		}
		f := c.fetch(called, title, size)
		if f == nil {
			continue
		}
		data := contentOf(title)
		if rng.IntN(2) == 0 {
			f.HashLate()
		}
		f.Start(source{"memory", func(ctx context.Context, sink content.Sink) error {
			for here := f.here(); ctx.Err() == nil; {
				r, ok := sink.Claim(-1, mib)
				r.End = min(r.End, int64(len(data)))
				if !ok || r.Len() == 0 {
					return sink.SetSize(int64(len(data)))
				}
				if err := bring(sink, data, r); err != nil {
					return err
				}
				sink.Release(r)
				here += r.Len()
				c.say(event{What: "accepted", Num: f.Num(), Bytes: here})
			}
			return ctx.Err()
		}})
		<-f.Done()
		c.expect("fill", f.Err())
		c.say(event{What: "ended", Num: f.Num()})
	}
}

// fillSmall fills so many small objects that segments come and go.
func (c *life) fillSmall() {
	for rng := c.rand(102); ; {
		called := fmt.Sprintf("http://small.example/%d", rng.IntN(3000))
		info, _, ok := c.store.Lookup(called)
		if ok && info.Complete {
			c.read(info)
			continue
		}
		title := titleOf(rng.Uint64(), rng.Int64N(SmallObject+1))
		if f := c.fetch(called, title, contentSize(title)); f != nil {
			c.finish(f, title, mib)
		}
	}
}

// fillTwins fills equal bytes under names that it shares with itself, and moves
// the names about.
func (c *life) fillTwins() {
	for i := range uint64(2) {
		go func() {
			for rng := c.rand(103 + i); ; {
				called := fmt.Sprintf("http://twin.example/%d", rng.IntN(10))
				info, _, ok := c.store.Lookup(called)
				switch {
				case ok && info.Complete && rng.IntN(2) == 0:
					c.expect("evict", c.store.Evict(info.Num))
				case ok && info.Complete:
					c.expect("rename", c.store.SetName(info.Num, fmt.Sprintf("http://twin.example/%d", rng.IntN(10)), []byte(info.Title)))
					c.expect("unpublish", c.store.Unpublish(info.Num))
				default:
					title := titleOf(rng.Uint64N(3), 2*mib+17)
					if ok {
						title = info.Title
					}
					if f := c.fetch(called, title, content.UnknownSize); f != nil {
						c.finish(f, title, 300_000)
					}
				}
			}
		}()
	}
}

// client has names that are its own: it knows what it was promised of them.
type client struct {
	*life
	num    int
	rng    *rand.Rand
	names  []string
	pinned map[string]bool
	denied []string
}

func newClient(c *life, num int) *client {
	cl := &client{life: c, num: num, rng: c.rand(uint64(num)), pinned: map[string]bool{}}
	host := fmt.Sprintf("http://client%d.example/", num)
	for i := range 8 {
		name := fmt.Sprintf("%s%d", host, i)
		for _, p := range c.Ledger.Pins {
			if p.Name == name || strings.HasPrefix(p.Name, name+"?") {
				name = p.Name
				cl.pinned[name] = true
			}
		}
		cl.names = append(cl.names, name)
	}
	for _, d := range c.store.Denials() {
		if strings.HasPrefix(d.What, host) {
			cl.denied = append(cl.denied, d.What)
		}
	}
	return cl
}

func (c *client) run() {
	for {
		i := c.rng.IntN(len(c.names))
		called := c.names[i]
		info, _, ok := c.store.Lookup(called)
		switch {
		case !ok && c.pinned[called]:
			c.wrong("%s was pinned and is gone", called)
			return
		case ok && info.Complete:
			c.change(i, info)
		case len(c.denied) > 3 && c.rng.IntN(4) == 0:
			c.lift()
		default:
			c.fill(called, info, ok)
		}
	}
}

// fill brings an object in, one time in four pinned from the start.
func (c *client) fill(called string, info Info, here bool) {
	sizes := []int64{0, 5000, SmallObject, SmallObject + 1, mib, 3*mib + 1, 7*mib + 12345}
	title := titleOf(c.rng.Uint64(), sizes[c.rng.IntN(len(sizes))]+c.rng.Int64N(1000))
	if here {
		title = info.Title
	}
	size := contentSize(title)
	if c.rng.IntN(2) == 0 {
		size = content.UnknownSize
	}
	f := c.fetch(called, title, size)
	if f == nil {
		return
	}
	if c.rng.IntN(4) == 0 && !c.isDenied(title) {
		c.pin(Info{Num: f.Num(), Title: title}, promise{Name: called})
	}
	c.finish(f, title, 1+c.rng.Int64N(2*mib))
}

// isDenied says whether the bytes of an object were taken down. A kill may leave
// the denial and forget that the object was whole: it is filled again, pinned or
// not, and has to go once its bytes are known.
func (c *client) isDenied(title string) bool {
	data := contentOf(title)
	id := content.ID{Root: content.Root(leavesOf(data)), Size: int64(len(data))}
	return errors.Is(c.store.Denied(id.String()), ErrDenied)
}

// pin pins an object, which also makes durable what was changed before.
func (c *client) pin(info Info, p promise) {
	p.Num, p.Title, p.Whole = info.Num, info.Title, info.Complete
	err := c.store.Pin(info.Num, true)
	if c.expect("pin", err); err == nil {
		c.pinned[p.Name] = true
		c.say(event{What: "pinned", Pin: p})
	}
}

// let says that nothing is promised of an object any more.
func (c *client) let(i int, info Info) {
	c.say(event{What: "letting", Num: info.Num})
	delete(c.pinned, c.names[i])
}

// change does something to an object that is whole.
func (c *client) change(i int, info Info) {
	switch c.rng.IntN(10) {
	case 0, 1:
		c.pin(info, promise{Name: c.names[i]})
	case 2:
		c.let(i, info)
		c.expect("unpin", c.store.Pin(info.Num, false))
	case 3:
		c.let(i, info)
		c.expect("evict", c.store.Evict(info.Num))
	case 4, 5:
		c.rename(i, info)
	case 6, 7:
		what := c.names[i]
		if c.rng.IntN(2) == 0 && info.Size > 0 {
			what = info.ID.String()
		}
		c.let(i, info)
		c.purge(what, what == c.names[i])
	default:
		c.read(info)
	}
}

// rename gives an object another name, keeps it pinned, and takes the old name
// away.
func (c *client) rename(i int, info Info) {
	old := c.names[i]
	base, _, _ := strings.Cut(old, "?")
	c.let(i, info)
	c.names[i] = fmt.Sprintf("%s?%x", base, c.rng.Uint32())
	if err := c.store.SetName(info.Num, c.names[i], []byte(info.Title)); err != nil {
		c.expect("rename", err)
		return
	}
	c.expect("drop name", c.store.DropName(old))
	c.pin(info, promise{Name: c.names[i], Gone: old})
}

func (c *client) purge(what string, lift bool) {
	c.say(event{What: "denying", Denial: what})
	if _, err := c.store.Purge(what, "test", "test"); err != nil {
		c.expect("purge", err)
		return
	}
	c.say(event{What: "denied", Denial: what})
	if lift {
		c.denied = append(c.denied, what)
	}
	if _, err := c.store.Create(Spec{Title: "0 of 0"}, what, nil); lift && !errors.Is(err, ErrDenied) {
		c.wrong("%s was taken down and can be filled: %v", what, err)
	}
}

// lift lets back what was taken down first.
func (c *client) lift() {
	what := c.denied[0]
	c.denied = slices.Delete(c.denied, 0, 1)
	c.say(event{What: "lifting", Denial: what})
	err := c.store.Lift(what, "test")
	if c.expect("lift", err); err == nil {
		c.say(event{What: "lifted", Denial: what})
	}
}

package hwtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/actors"
)

// contentOf is what the endless origin has under a number: bytes that no
// compression helps, the same for the same number.
func contentOf(number uint64, size int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(number >> (8 * i))
	}
	body := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(body) // never fails
	return body
}

// endless is an origin of any number of objects, at /<number>/<size>.
type endless struct {
	asked, sent atomic.Int64
	prepared    sync.Map // of path to content that is not to be made when it is asked for
}

// prepare makes what is at a path beforehand.
func (e *endless) prepare(number uint64, size int) []byte {
	body := contentOf(number, size)
	e.prepared.Store(fmt.Sprintf("/%d/%d", number, size), body)
	return body
}

// bytes is how many bytes of bodies were asked for.
func (e *endless) bytes() int64 { return e.sent.Load() }

func (e *endless) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.asked.Add(1)
	var number uint64
	var size int
	if _, err := fmt.Sscanf(r.URL.Path, "/%d/%d", &number, &size); err != nil || size > 64<<20 {
		http.NotFound(w, r)
		return
	}
	body, ok := e.prepared.Load(r.URL.Path)
	if !ok {
		body = contentOf(number, size)
	}
	e.sent.Add(int64(size))
	w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprint(number)))
	w.Header().Set("Cache-Control", "max-age=86400")
	http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(body.([]byte)))
}

// thing is an object of the endless origin.
type thing struct {
	number uint64
	size   int
}

func (o thing) path() string { return fmt.Sprintf("/%d/%d", o.number, o.size) }

// crowd is clients that ask the box for things, and check every byte.
type crowd struct {
	scene  *scene
	origin *endless
	pinned []thing
	next   atomic.Uint64
	count  counts

	mu  sync.Mutex // guards box and bad
	box *actors.Box
	bad []string // what should not have been, the first of it
}

// counts are what clients saw.
type counts struct{ hits, stored, passed, cut, refused, wrong, pinnedMissed, silent atomic.Int64 }

func newCrowd(t *testing.T, s *scene) *crowd {
	t.Helper()
	c := &crowd{scene: s, origin: &endless{}}
	l, err := s.origin.Listen("tcp", s.origin.AddrPort(80))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: c.origin, ReadHeaderTimeout: 30 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return c
}

// use sends the crowd to a box.
func (c *crowd) use(box *actors.Box) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.box = box
}

func (c *crowd) url(o thing) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.box.URL() + "/get/http/" + c.scene.origin.Addr().String() + o.path()
}

// fresh is a thing that nobody has asked for.
func (c *crowd) fresh(size int) thing { return thing{c.next.Add(1), size} }

// answer is how the box answered.
type answer struct {
	hit, stored bool
	err         error // it was cut, refused or wrong
}

// ask asks the box for a thing, and counts and checks the answer.
func (c *crowd) ask(ctx context.Context, client int, o thing) answer {
	limited, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(limited, http.MethodGet, c.url(o), nil)
	if err != nil {
		return answer{err: err}
	}
	resp, err := c.scene.clients[client%len(c.scene.clients)].HTTPClient().Do(req)
	if err != nil {
		return c.failed(ctx, &c.count.cut, o, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(o.size)+1))
	want := contentOf(o.number, o.size)
	switch {
	case resp.StatusCode != http.StatusOK:
		return c.failed(ctx, &c.count.refused, o, fmt.Errorf("%s: %s", resp.Status, body))
	case err != nil && bytes.HasPrefix(want, body):
		return c.failed(ctx, &c.count.cut, o, fmt.Errorf("cut after %d bytes: %w", len(body), err))
	case !bytes.Equal(body, want):
		return c.failed(ctx, &c.count.wrong, o, errors.New("wrong bytes"))
	}
	status := resp.Header.Get("Cache-Status")
	a := answer{hit: strings.Contains(status, ";hit"), stored: strings.Contains(status, ";stored")}
	switch {
	case a.hit:
		c.count.hits.Add(1)
	case a.stored:
		c.count.stored.Add(1)
	case strings.Contains(status, "fwd="):
		c.count.passed.Add(1)
	default:
		c.failed(ctx, &c.count.silent, o, fmt.Errorf("Cache-Status is %q", status))
	}
	return a
}

// failed counts what went wrong, unless it is the test that ends.
func (c *crowd) failed(ctx context.Context, n *atomic.Int64, o thing, err error) answer {
	if ctx.Err() != nil {
		return answer{err: ctx.Err()}
	}
	n.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.bad) < 20 {
		c.bad = append(c.bad, fmt.Sprintf("%s: %v", o.path(), err))
	}
	return answer{err: err}
}

// run has clients ask until ctx ends: for what is pinned, what was asked for
// before, and, mostly, what nobody had asked for.
func (c *crowd) run(ctx context.Context, clients int) {
	var all sync.WaitGroup
	defer all.Wait()
	for i := range clients {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), c.next.Load()))
			var before []thing
			for ctx.Err() == nil {
				switch dice := rng.IntN(10); {
				case dice < 3:
					if a := c.ask(ctx, i, c.pinned[rng.IntN(len(c.pinned))]); !a.hit && ctx.Err() == nil {
						c.count.pinnedMissed.Add(1)
					}
				case dice < 5 && len(before) > 0:
					c.ask(ctx, i, before[rng.IntN(len(before))])
				default:
					o := c.fresh([]int{20_000, 20_000, 20_000, 700_000, 3_000_000}[rng.IntN(5)])
					c.ask(ctx, i, o)
					before = append(before, o)
					before = before[max(0, len(before)-8):]
				}
			}
		})
	}
}

// pin brings things in and pins them.
func (c *crowd) pin(t *testing.T, n, size int) {
	t.Helper()
	for range n {
		o := c.fresh(size)
		if a := c.ask(t.Context(), 0, o); a.err != nil {
			t.Fatal(a.err)
		}
		address := "http://" + c.scene.origin.Addr().String() + o.path()
		if _, err := c.box.Command(t.Context(), "pin", address); err != nil {
			t.Fatal(err)
		}
		c.pinned = append(c.pinned, o)
	}
}

// keeps waits until something new is kept: what comes the second time is a hit.
func (c *crowd) keeps(t *testing.T) time.Duration {
	t.Helper()
	for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(50 * time.Millisecond) {
		o := c.fresh(300_000)
		if a := c.ask(t.Context(), 0, o); a.err == nil && a.stored && c.ask(t.Context(), 1, o).hit {
			return time.Since(began)
		}
	}
	t.Fatalf("nothing new was kept for 30 s\n%s", c.story())
	return 0
}

// alive fails the test if the box has ended.
func (c *crowd) alive(t *testing.T) {
	t.Helper()
	select {
	case <-c.box.Process.Done():
		out, _ := c.box.Process.Output()
		t.Fatalf("the box has ended: %v\n%s", c.box.Process.Wait(), out[max(0, len(out)-6000):])
	default:
	}
}

// story is what was seen, for a log.
func (c *crowd) story() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := &c.count
	return fmt.Sprintf("%d hits, %d stored, %d passed through uncached, %d cut, %d refused, %d wrong, %d without Cache-Status; pinned and no hit %d; origin asked %d times\n%s",
		n.hits.Load(), n.stored.Load(), n.passed.Load(), n.cut.Load(), n.refused.Load(), n.wrong.Load(), n.silent.Load(),
		n.pinnedMissed.Load(), c.origin.asked.Load(), strings.Join(c.bad, "\n"))
}

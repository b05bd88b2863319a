package proxy

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// memory is a Source that has a body, up to the byte upTo, and waits for gate.
type memory struct {
	body  []byte
	upTo  int
	gate  chan struct{}
	wrote *atomic.Int64
}

func (m *memory) Name() string { return "memory" }

func (m *memory) Fill(ctx context.Context, sink content.Sink) error {
	select {
	case <-m.gate:
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, miss := range sink.Missing() {
		for off := miss.Off; off < min(miss.End, int64(m.upTo)); {
			end := min(off+content.BlockSize, miss.End, int64(m.upTo))
			if _, err := sink.WriteAt(m.body[off:end], off); err != nil {
				return err
			}
			if err := sink.Accept(content.Range{Off: off, End: end}); err != nil {
				return err
			}
			m.wrote.Add(end - off)
			off = end
		}
	}
	if len(sink.Missing()) > 0 {
		return content.ErrNotHere
	}
	return nil
}

// desk is the box as an agent sees it: one object under one identity or name.
type desk struct {
	memory
	id    content.ID
	layer *content.Layer
	err   error
	hold  chan struct{} // an answer waits for it
	asked atomic.Int64
}

func newDesk(t *testing.T, body []byte) *desk {
	leaves, err := content.HashLeaves(nil, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{layer: content.NewLayer(int64(len(body)), leaves), hold: make(chan struct{})}
	d.id = content.ID{Root: d.layer.Root(), Size: int64(len(body))}
	d.memory = memory{body: body, upTo: len(body), gate: make(chan struct{}), wrote: &atomic.Int64{}}
	close(d.gate)
	close(d.hold)
	return d
}

func (d *desk) open(ctx context.Context, _ content.ID, _ string) (*content.Offer, error) {
	d.asked.Add(1)
	select {
	case <-d.hold:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if d.err != nil {
		return nil, d.err
	}
	return &content.Offer{
		Status: http.StatusOK, Sources: []content.Source{&d.memory},
		Object: content.Object{ID: d.id, Size: d.id.Size, Trust: content.TrustPieces, Layer: d.layer},
	}, nil
}

// agentBox is a box in the part of an agent.
func agentBox(t *testing.T, dir string, d *desk) *box {
	return newBox(t, dir, loopback(t), func(c *Config) { c.OpenObject, c.Vouched = d.open, "the box at home" }, nil)
}

func TestManyAskForAnObjectOnce(t *testing.T) {
	d := newDesk(t, testBody(2<<20+5))
	d.hold = make(chan struct{})
	b := agentBox(t, t.TempDir(), d)
	address := b.at("/o/" + d.id.String())
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if r := b.get(address); r.StatusCode != 200 || !bytes.Equal(r.body, d.body) {
				t.Errorf("%d, %d bytes, %s", r.StatusCode, len(r.body), r.status())
			}
		})
	}
	for b.Stats().Requests < 20 {
		time.Sleep(time.Millisecond)
	}
	close(d.hold)
	wait.Wait()
	b.settle()
	for field, want := range map[string][]byte{"bytes=5-9": d.body[5:10], "bytes=-3": d.body[len(d.body)-3:], "bytes=1048570-1048590": d.body[1048570:1048591]} {
		if r := b.get(address, "Range: "+field); r.StatusCode != 206 || !bytes.Equal(r.body, want) {
			t.Errorf("%s: %d, %d bytes", field, r.StatusCode, len(r.body))
		}
	}
	if r := b.get(address, "Range: bytes=9999999-"); r.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("beyond the end: %d", r.StatusCode)
	}
	if _, err := b.bring(t.Context(), d.id, ""); err != nil { // who looked before it was here
		t.Error(err)
	}
	if n := d.asked.Load(); n != 1 || d.wrote.Load() != int64(len(d.body)) {
		t.Errorf("asked %d times, %d bytes came", n, d.wrote.Load())
	}
	b.settle()
	if x, err := b.store.Explain(b.store.List()[0].Num); err != nil || !strings.Contains(x.Vouched, "the box at home") {
		t.Errorf("vouched for by %q, %v", x.Vouched, err)
	}
}

func TestRangeOfAnObjectThatIsNotHere(t *testing.T) {
	d := newDesk(t, testBody(3<<20))
	b := agentBox(t, t.TempDir(), d)
	r := b.get(b.at("/o/"+d.id.String()), "Range: bytes=2097152-2097161")
	if r.StatusCode != 206 || !bytes.Equal(r.body, d.body[2<<20:2<<20+10]) {
		t.Errorf("%d, %d bytes", r.StatusCode, len(r.body))
	}
}

func TestPartOfAnObjectGoesOnAfterARestart(t *testing.T) {
	for _, name := range []string{"", "btih:" + strings.Repeat("ab", 20) + "/dir/file.bin"} {
		d := newDesk(t, testBody(4<<20))
		d.upTo = 2 << 20
		path := "/o/" + d.id.String()
		if name != "" {
			path = "/o/" + name
		}
		dir := t.TempDir()
		b := agentBox(t, dir, d)
		r, err := b.client.Get(b.at(path))
		if err == nil {
			r.Body.Close()
		}
		b.settle()
		b.stop()
		d.upTo = len(d.body)
		b = agentBox(t, dir, d)
		if r := b.get(b.at(path)); r.StatusCode != 200 || !bytes.Equal(r.body, d.body) {
			t.Errorf("%s: %d, %d bytes", path, r.StatusCode, len(r.body))
		}
		b.settle()
		if list := b.store.List(); d.wrote.Load() != int64(len(d.body)) || len(list) != 1 || list[0].ID != d.id {
			t.Errorf("%s: %d bytes came; %+v", path, d.wrote.Load(), list)
		}
	}
}

func TestWrongBytesOfAnObjectAreRefused(t *testing.T) {
	d := newDesk(t, testBody(2<<20))
	d.memory.body = bytes.Clone(d.body)
	d.memory.body[1<<20+7] ^= 1
	b := agentBox(t, t.TempDir(), d)
	resp, err := b.client.Get(b.at("/o/" + d.id.String()))
	if err == nil {
		defer resp.Body.Close()
		var got bytes.Buffer
		if _, err = got.ReadFrom(resp.Body); err == nil && resp.StatusCode == 200 {
			t.Errorf("%d bytes passed for whole", got.Len())
		}
	}
	b.settle()
	for _, info := range b.store.List() {
		if info.Complete {
			t.Errorf("kept as complete: %+v", info)
		}
	}
}

func TestAnotherObjectIsNotTaken(t *testing.T) {
	d := newDesk(t, testBody(1000))
	b := agentBox(t, t.TempDir(), d)
	other := content.ID{Root: content.Hash{1}, Size: 1000}
	if r := b.get(b.at("/o/" + other.String())); r.StatusCode != http.StatusBadGateway || !strings.Contains(string(r.body), d.id.String()) {
		t.Errorf("%d %q", r.StatusCode, r.body)
	}
	if list := b.store.List(); len(list) != 0 {
		t.Errorf("kept: %+v", list)
	}
}

func TestObjectThatIsNowhere(t *testing.T) {
	d := newDesk(t, testBody(10))
	d.err = errors.New("the box has none")
	b := agentBox(t, t.TempDir(), d)
	for range 2 {
		if r := b.get(b.at("/o/" + d.id.String())); r.StatusCode != 404 || !strings.Contains(string(r.body), "the box has none") {
			t.Errorf("%d %q", r.StatusCode, r.body)
		}
	}
	d.err = nil
	if r := b.get(b.at("/o/" + d.id.String())); r.StatusCode != 200 || !bytes.Equal(r.body, d.body) {
		t.Errorf("then %d %q", r.StatusCode, r.body)
	}
}

func TestTwinIsNamedAndNotFetchedAgain(t *testing.T) {
	d := newDesk(t, testBody(2<<20))
	b := agentBox(t, t.TempDir(), d)
	f, err := b.store.Create(cache.Spec{Object: content.Object{Size: d.id.Size}, Title: "x", Public: true}, "http://origin/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Start(&d.memory)
	b.settle()
	name := "btih:" + strings.Repeat("cd", 20) + "/x"
	for range 2 {
		if r := b.get(b.at("/o/" + name)); r.StatusCode != 200 || !bytes.Equal(r.body, d.body) {
			t.Errorf("%d, %d bytes", r.StatusCode, len(r.body))
		}
	}
	if list := b.store.List(); len(list) != 1 || d.asked.Load() != 1 || d.wrote.Load() != d.id.Size {
		t.Errorf("asked %d times, %d bytes came; %+v", d.asked.Load(), d.wrote.Load(), list)
	}
}

func TestClientThatLeavesDoesNotStopTheSearch(t *testing.T) {
	d := newDesk(t, testBody(1000))
	d.hold = make(chan struct{})
	b := agentBox(t, t.TempDir(), d)
	ctx, leave := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, b.at("/o/"+d.id.String()), nil)
	gone := make(chan error, 1)
	go func() {
		_, err := b.client.Do(req)
		gone <- err
	}()
	for d.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	leave()
	if err := <-gone; err == nil {
		t.Fatal("the client got an answer")
	}
	close(d.hold)
	if r := b.get(b.at("/o/" + d.id.String())); r.StatusCode != 200 || !bytes.Equal(r.body, d.body) {
		t.Errorf("%d, %d bytes", r.StatusCode, len(r.body))
	}
	if n := d.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// A search that hangs ends with the Server, which waits for it: whoever closes
// the store next must be alone with it.
func TestTheEndWaitsForASearch(t *testing.T) {
	d := newDesk(t, testBody(1000))
	var ended atomic.Bool
	b := newBox(t, t.TempDir(), loopback(t), func(c *Config) {
		c.OpenObject = func(ctx context.Context, _ content.ID, _ string) (*content.Offer, error) {
			d.asked.Add(1)
			<-ctx.Done()
			time.Sleep(50 * time.Millisecond) // it takes its time to notice
			ended.Store(true)
			return nil, ctx.Err()
		}
	}, nil)
	go func() {
		if resp, err := b.client.Get(b.at("/o/" + d.id.String())); err == nil {
			resp.Body.Close()
		}
	}()
	for d.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	b.stop()
	if !ended.Load() {
		t.Error("Serve returned before the search had ended")
	}
}

// The part of a handler that runs on must not meet a store that is closed.
func TestTheEndWaitsForHandlers(t *testing.T) {
	in, ended := make(chan struct{}), atomic.Bool{}
	b := newBox(t, t.TempDir(), loopback(t), nil, slowTorrents(func(ctx context.Context) {
		close(in)
		<-ctx.Done()
		time.Sleep(50 * time.Millisecond)
		ended.Store(true)
	}))
	d := newDesk(t, testBody(1000))
	f, err := b.store.Create(cache.Spec{Object: content.Object{Size: d.id.Size}, Title: "x", Public: true}, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Start(&d.memory)
	b.settle()
	go func() {
		if resp, err := b.client.Get(b.at("/o/" + d.id.String() + "?torrent")); err == nil {
			resp.Body.Close()
		}
	}()
	<-in
	b.stop()
	if !ended.Load() {
		t.Error("Serve returned before a handler had ended")
	}
}

// slowTorrents is told when a torrent is asked for.
type slowTorrents func(ctx context.Context)

func (s slowTorrents) Torrent(ctx context.Context, _ uint64, _ string) ([]byte, float64, error) {
	s(ctx)
	return nil, 0, ctx.Err()
}

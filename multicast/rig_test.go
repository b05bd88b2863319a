package multicast

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/content/contenttest"
	"github.com/cistern-edge/cistern/multicast/announce"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// noise is bytes that do not repeat.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// testLog is where parts under test log to.
func testLog() *slog.Logger {
	if os.Getenv("MULTICAST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// given is a Source that has all the bytes. It waits for go-ahead, if it has to.
type given struct {
	data  []byte
	ahead <-chan struct{}
	bytes *atomic.Int64 // of what was asked of it
}

func (given) Name() string { return "given" }

func (g given) Fill(ctx context.Context, sink content.Sink) error {
	if g.ahead != nil {
		select {
		case <-g.ahead:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if sink.Size() < 0 {
		if err := sink.SetSize(int64(len(g.data))); err != nil {
			return err
		}
	}
	for _, r := range sink.Missing() {
		if _, err := sink.WriteAt(g.data[r.Off:r.End], r.Off); err != nil {
			return err
		}
		if err := sink.Accept(r); err != nil {
			return err
		}
		if g.bytes != nil {
			g.bytes.Add(r.Len())
		}
	}
	return nil
}

// box is a box with its parts on a LAN in memory.
type box struct {
	t      *testing.T
	hub    *hub
	host   *hubHost
	store  *cache.Store
	key    *announce.Key
	roster *Roster
	caster *Caster
	desk   *Desk
	found  map[string]Found // what the Finder knows, by URL
}

// openStore opens a store in a directory of the test. It must be called outside
// of a synctest bubble: the store's goroutines live as long as the test.
func openStore(t *testing.T) *cache.Store {
	t.Helper()
	store, err := cache.Open(cache.Config{Dir: t.TempDir(), MinFree: 1, Small: true}, testLog())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// keep puts a complete object into a store.
func keep(t *testing.T, store *cache.Store, name string, data []byte, public bool) cache.Info {
	t.Helper()
	fill, err := store.Create(cache.Spec{Object: content.Object{Size: int64(len(data))}, Title: name, Public: public}, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	fill.Start(given{data: data})
	<-fill.Done()
	info, _, ok := store.Lookup(name)
	if !ok || !info.Complete {
		t.Fatalf("%s was not kept: %+v", name, info)
	}
	return info
}

// newBox puts a box on a LAN of its own. It runs until the test ends.
func newBox(t *testing.T, store *cache.Store, cfg CasterConfig) *box {
	t.Helper()
	h := newHub()
	b := &box{t: t, hub: h, host: h.host("10.0.0.1", 0, 1), store: store, found: map[string]Found{}}
	var err error
	if b.key, err = announce.NewKey(); err != nil {
		t.Fatal(err)
	}
	if b.roster, err = OpenRoster(filepath.Join(t.TempDir(), "agents.json")); err != nil {
		t.Fatal(err)
	}
	if cfg.Interfaces == nil {
		cfg.Interfaces = []string{"lan"}
	}
	if b.caster, err = newCaster(cfg, b.key, store, b.roster, b.host, testLog()); err != nil {
		t.Fatal(err)
	}
	if b.desk, err = NewDesk(DeskConfig{}, b.key, b.roster, store, b, b.caster, testLog()); err != nil {
		t.Fatal(err)
	}
	run(t, b.caster.Run)
	began(&b.caster.mu, &b.caster.ctx)
	return b
}

// run runs a part until the test ends.
func run(t *testing.T, part func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := part(ctx); err != nil {
			t.Errorf("a part ended: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// began waits until a part runs.
func began(mu *sync.Mutex, ctx *context.Context) {
	for {
		mu.Lock()
		running := *ctx != nil
		mu.Unlock()
		if running {
			return
		}
		runtime.Gosched()
	}
}

// Want implements Finder.
func (b *box) Want(_ context.Context, req *http.Request) (Found, error) {
	f, ok := b.found[req.URL.String()]
	if !ok {
		return Found{}, errors.New("no such page")
	}
	return f, nil
}

// offer lets agents find an object under a URL.
func (b *box) offer(url string, info cache.Info) {
	b.found[url] = Found{Num: info.Num, Status: http.StatusOK, Header: http.Header{"Etag": {`"x"`}}, Public: info.Public}
}

// RoundTrip implements http.RoundTripper: it is the pinned channel, without a
// network.
func (b *box) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	server := req.Clone(req.Context())
	server.TLS = &tls.ConnectionState{}
	if server.Body == nil {
		server.Body = http.NoBody
	}
	b.desk.ServeHTTP(w, server)
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// agent is an agent on the LAN of a box.
type agent struct {
	host    *hubHost
	line    *Line
	catcher *Catcher
	member  *Member
	repair  atomic.Int64 // bytes fetched from the box by HTTP
}

// agent puts an agent on the LAN, enrols it and runs it until the test ends.
// data is what the box's HTTP side would give.
func (b *box) agent(i int, loss float64, data []byte) *agent {
	b.t.Helper()
	return b.agentWith(CatcherConfig{}, i, loss, data)
}

func (b *box) agentWith(cfg CatcherConfig, i int, loss float64, data []byte) *agent {
	b.t.Helper()
	name := fmt.Sprintf("pc-%d", i)
	a := &agent{host: b.hub.host(fmt.Sprintf("10.0.%d.%d", 1+i/200, 1+i%200), loss, uint64(i)+77)}
	var err error
	state := filepath.Join(b.t.TempDir(), name+".json")
	a.line, err = enrol(context.Background(), &http.Client{Transport: b}, "http://10.0.0.1:3142", b.key.Fingerprint(), name, state)
	if err != nil {
		b.t.Fatal(err)
	}
	if a.catcher, err = newCatcher(cfg, a.line, a.host, testLog()); err != nil {
		b.t.Fatal(err)
	}
	a.member = NewMember(a.line, a.catcher, func(content.ID) content.Source {
		return given{data: data, bytes: &a.repair}
	}, testLog())
	run(b.t, a.catcher.Run)
	began(&a.catcher.mu, &a.catcher.ctx)
	return a
}

// get has the agent fetch what a URL names into a sink, as its proxy would.
func (a *agent) get(url string) (*contenttest.Sink, *content.Offer, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, err
	}
	offer, err := a.member.Open(context.Background(), req)
	if err != nil {
		return nil, nil, err
	}
	sink := contenttest.NewSink(offer.Object.Size, offer.Object.Layer)
	return sink, offer, fill(context.Background(), offer, sink)
}

// fill asks the sources of an offer in turn, as the store does.
func fill(ctx context.Context, offer *content.Offer, sink content.Sink) error {
	err := error(content.ErrNotHere)
	for _, s := range offer.Sources {
		if err = s.Fill(ctx, sink); err == nil {
			return nil
		}
	}
	return err
}

// whole fails the test unless the sink has exactly data.
func whole(t *testing.T, sink *contenttest.Sink, data []byte) {
	t.Helper()
	if diff := sink.Diff(data); diff != "" {
		t.Errorf("the object differs: %s", diff)
	}
	if faults := sink.Faults(); len(faults) > 0 {
		t.Errorf("%d broken promises, first: %s", len(faults), faults[0])
	}
}

// serverTLS is how the box speaks TLS to its agents.
func serverTLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}
}

// quiet takes what net/http says of failed handshakes.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

func nodeOf(n int) norm.NodeID { return norm.NodeID(n) }

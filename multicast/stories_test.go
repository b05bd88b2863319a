package multicast

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/content/contenttest"
	"github.com/cistern-edge/cistern/multicast/announce"
)

const page = "http://origin/file"

// together has agents fetch the page at the same time and checks what they get.
func together(t *testing.T, data []byte, agents ...*agent) {
	t.Helper()
	var wg sync.WaitGroup
	for _, a := range agents {
		wg.Go(func() {
			sink, _, err := a.get(page)
			if err != nil {
				t.Error(err)
				return
			}
			whole(t, sink, data)
		})
	}
	wg.Wait()
}

// story runs a test in a bubble, with a box that has one object of size bytes.
func story(t *testing.T, size int, cfg CasterConfig, tell func(t *testing.T, b *box, info cache.Info, data []byte)) {
	t.Helper()
	data := noise(5, size)
	store := openStore(t)
	info := keep(t, store, page, data, true)
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, store, cfg)
		b.offer(page, info)
		tell(t, b, info, data)
	})
}

// last is the box's newest session.
func (b *box) last() SessionStats {
	b.t.Helper()
	st := b.caster.Stats()
	if len(st.Sessions) == 0 {
		b.t.Fatal("there was no session")
	}
	return st.Sessions[0]
}

func TestOneAgentGetsItOverHTTP(t *testing.T) {
	story(t, 2<<20, CasterConfig{}, func(t *testing.T, b *box, info cache.Info, data []byte) {
		a := b.agent(0, 0, data)
		began := time.Now()
		sink, offer, err := a.get(page)
		if err != nil {
			t.Fatal(err)
		}
		whole(t, sink, data)
		if took := time.Since(began); took < time.Second || took > 2*time.Second {
			t.Errorf("a lone agent waited %s, want about a second", took)
		}
		if len(offer.Sources) != 1 || offer.Sources[0].Name() != "given" || offer.Object.ID != info.ID || offer.Object.Trust != content.TrustPieces {
			t.Errorf("offer %+v, want the box alone, with a proof", offer)
		}
		if offer.Status != 200 || offer.Header.Get("ETag") != `"x"` {
			t.Errorf("head of the offer is %d %v", offer.Status, offer.Header)
		}
		if st := b.caster.Stats(); st.Cast != 0 {
			t.Errorf("%d sessions for one agent", st.Cast)
		}
	})
}

func TestTwoAgentsGetACast(t *testing.T) {
	story(t, 2<<20, CasterConfig{}, func(t *testing.T, b *box, info cache.Info, data []byte) {
		one, two := b.agent(0, 0, data), b.agent(1, 0, data)
		together(t, data, one, two)
		time.Sleep(5 * time.Second)
		if n := one.repair.Load() + two.repair.Load(); n != 0 {
			t.Errorf("%d bytes came by HTTP on a LAN without loss", n)
		}
		s := b.last()
		if s.State != "ended" || s.Err != "" || s.Sent != info.Size || s.Object != info.Num || len(s.Receivers) != 2 {
			t.Errorf("session %+v", s)
		}
		for _, r := range s.Receivers {
			if r.State != stateComplete || r.Received != info.Size || r.Missing != 0 {
				t.Errorf("receiver %+v", r)
			}
		}
		if now, _ := b.store.Get(info.Num); now.Served["multicast"] != 2*info.Size {
			t.Errorf("%d bytes are counted as served, want %d", now.Served["multicast"], 2*info.Size)
		}
		if st := one.catcher.Stats(); st.Joined != 1 || st.Whole != 1 || st.Bytes != info.Size || st.Left != 0 {
			t.Errorf("catcher %+v", st)
		}
	})
}

func TestAgentsWaitForTheEndOfAFill(t *testing.T) {
	data := noise(6, 2<<20)
	store := openStore(t)
	ahead := make(chan struct{})
	object := content.Object{Size: int64(len(data))}
	fill, err := store.Create(cache.Spec{Object: object, Title: page, Public: true}, page, nil)
	if err != nil {
		t.Fatal(err)
	}
	fill.Start(given{data: data, ahead: ahead})
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, store, CasterConfig{})
		info, _, _ := store.Lookup(page)
		b.offer(page, info)
		agents := []*agent{b.agent(0, 0, data), b.agent(1, 0, data), b.agent(2, 0, data)}
		began := time.Now()
		go func() {
			time.Sleep(50 * time.Second) // longer than one request is held
			close(ahead)
			<-fill.Done()
		}()
		together(t, data, agents...)
		if took := time.Since(began); took < 50*time.Second {
			t.Errorf("the agents had it after %s", took)
		}
		for i, a := range agents {
			if st := a.catcher.Stats(); st.Whole != 1 {
				t.Errorf("agent %d: %+v, want a whole cast", i, st)
			}
		}
		if d := b.desk.Stats(); d.Cast != 3 || d.Wants < 9 {
			t.Errorf("desk %+v, want 3 casts after several questions each", d)
		}
	})
}

func TestLoneAgentOfAFillIsLetPast(t *testing.T) {
	store := openStore(t)
	ahead := make(chan struct{})
	fill, err := store.Create(cache.Spec{Object: content.Object{Size: 2 << 20}, Title: page, Public: true}, page, nil)
	if err != nil {
		t.Fatal(err)
	}
	fill.Start(given{data: noise(6, 2<<20), ahead: ahead})
	defer close(ahead)
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, store, CasterConfig{})
		info, _, _ := store.Lookup(page)
		b.offer(page, info)
		if _, _, err := b.agent(0, 0, nil).get(page); !errors.Is(err, ErrBypass) {
			t.Errorf("the agent was told %v, want ErrBypass", err)
		}
	})
}

func TestHTTPFillsWhatMulticastLeaves(t *testing.T) {
	story(t, 4<<20, CasterConfig{RepairRounds: 1}, func(t *testing.T, b *box, info cache.Info, data []byte) {
		good, bad, deaf := b.agent(0, 0, data), b.agent(1, 0.45, data), b.agent(2, 0, data)
		deaf.host.deaf = true
		together(t, data, good, bad, deaf)
		time.Sleep(10 * time.Second)
		if st := good.catcher.Stats(); good.repair.Load() != 0 || st.Whole != 1 {
			t.Errorf("the agent without loss needed HTTP: %+v", st)
		}
		if n, st := bad.repair.Load(), bad.catcher.Stats(); n == 0 || n == info.Size || st.Left != n {
			t.Errorf("the agent with loss fetched %d bytes by HTTP: %+v", n, st)
		}
		if n, st := deaf.repair.Load(), deaf.catcher.Stats(); n != info.Size || st.Unheard != 1 {
			t.Errorf("the deaf agent fetched %d bytes by HTTP: %+v", n, st)
		}
		for _, r := range b.last().Receivers {
			want := map[string]string{"pc-0": stateComplete, "pc-1": stateLeft, "pc-2": stateExpected}[r.Name]
			if r.State != want {
				t.Errorf("receiver %+v, want it %s", r, want)
			}
			if r.Name == "pc-1" && (r.Loss < 0.3 || r.Loss > 0.6) {
				t.Errorf("receiver %+v, want a loss of about 0.45", r)
			}
		}
	})
}

func TestManyExtents(t *testing.T) {
	story(t, 7<<20+77, CasterConfig{}, func(t *testing.T, b *box, info cache.Info, data []byte) {
		b.caster.extent = func(int64) int64 { return 1 << 20 }
		one, two := b.agent(0, 0.03, data), b.agent(1, 0.03, data)
		together(t, data, one, two)
		if n := one.repair.Load() + two.repair.Load(); n != 0 {
			t.Errorf("%d bytes came by HTTP", n)
		}
		time.Sleep(5 * time.Second)
		if s := b.last(); s.Err != "" || s.Sent != info.Size || float64(s.Wire) > 1.15*float64(info.Size) {
			t.Errorf("session %+v", s)
		}
	})
}

func TestJoinedButSilent(t *testing.T) {
	story(t, 2<<20, CasterConfig{}, func(t *testing.T, b *box, info cache.Info, data []byte) {
		a := b.agent(0, 0, data)
		// A session is announced, and nothing ever comes.
		notice := announce.Notice{
			Epoch: b.caster.epoch, Sequence: 1, Issued: time.Now(), Lifetime: time.Minute, State: announce.OnAir, ID: info.ID,
			Group: netip.MustParseAddrPort("232.77.9.9:6003"), Feedback: netip.MustParseAddrPort("10.0.0.1:9"),
			Node: 1, Instance: 7, SegmentSize: 1408, K: 128, Parity: 32, ExtentSize: extentSize,
		}
		sendNotice(t, b, b.key, notice)
		sink := contenttest.NewSink(info.Size, nil)
		began := time.Now()
		err := a.catcher.Source(info.ID).Fill(context.Background(), sink)
		if took := time.Since(began); !errors.Is(err, content.ErrNotHere) || took > 4*time.Second {
			t.Errorf("a silent session gave %v after %s, want ErrNotHere after some 3 s", err, took)
		}
		if st := a.catcher.Stats(); st.Silent != 1 || st.Joined != 1 {
			t.Errorf("catcher %+v, want one silent session", st)
		}
	})
}

// sendNotice puts a notice on the LAN, signed with key.
func sendNotice(t *testing.T, b *box, key *announce.Key, n announce.Notice) {
	t.Helper()
	raw, err := key.Seal(n)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := b.host.transmit("lan", netip.Addr{}, socketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.close()
	synctest.Wait() // until the agents listen
	if err := tx.send([][]byte{raw}, b.caster.noticeGroup()); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func TestForgedNoticesAreIgnored(t *testing.T) {
	story(t, 2<<20, CasterConfig{}, func(t *testing.T, b *box, info cache.Info, data []byte) {
		a := b.agent(0, 0, data)
		other, err := announce.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		notice := announce.Notice{
			Epoch: b.caster.epoch, Sequence: 1 << 40, Issued: time.Now(), Lifetime: time.Minute, State: announce.OnAir, ID: info.ID,
			Group: netip.MustParseAddrPort("232.77.9.9:6003"), Feedback: netip.MustParseAddrPort("10.0.0.1:9"),
			Node: 1, Instance: 7, SegmentSize: 1408, K: 128, Parity: 32, ExtentSize: extentSize,
		}
		sendNotice(t, b, other, notice)
		stale := notice
		stale.Epoch++
		sendNotice(t, b, b.key, stale)
		if st := a.catcher.Stats(); st.Refused != 2 || st.Notices != 0 {
			t.Errorf("catcher %+v, want both notices refused", st)
		}
		sink := contenttest.NewSink(info.Size, nil)
		if err := a.catcher.Source(info.ID).Fill(context.Background(), sink); !errors.Is(err, content.ErrNotHere) {
			t.Errorf("Fill gave %v, want ErrNotHere", err)
		}
		if st := a.catcher.Stats(); st.Joined != 0 || st.Unheard != 1 {
			t.Errorf("catcher %+v, want nothing joined", st)
		}
	})
}

func TestLateAgentTakesWhatFlows(t *testing.T) {
	story(t, 8<<20, CasterConfig{}, func(t *testing.T, b *box, info cache.Info, data []byte) {
		first, second, late := b.agent(0, 0, data), b.agent(1, 0, data), b.agent(2, 0, data)
		var wg sync.WaitGroup
		wg.Go(func() { together(t, data, first, second) })
		time.Sleep(700 * time.Millisecond) // a bit less than the time for the whole object
		together(t, data, late)
		wg.Wait()
		if n, st := late.repair.Load(), late.catcher.Stats(); st.Late != 1 || n == 0 || n == info.Size {
			t.Errorf("the late agent fetched %d bytes by HTTP: %+v", n, st)
		}
		s := b.last()
		if ratio := float64(s.Wire) / float64(info.Size); ratio > 1.06 || s.Repair > 0 {
			t.Errorf("the late agent made the session cost %.3f, with %d bytes of repair", ratio, s.Repair)
		}
	})
}

func TestBoxStopsWhileItCasts(t *testing.T) {
	data := noise(5, 8<<20)
	store := openStore(t)
	info := keep(t, store, page, data, true)
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t, store, CasterConfig{})
		b.offer(page, info)
		one, two := b.agent(0, 0, data), b.agent(1, 0, data)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		b.caster.mu.Lock()
		b.caster.ctx = ctx // as if Run's ended
		b.caster.mu.Unlock()
		go func() {
			time.Sleep(600 * time.Millisecond)
			cancel()
		}()
		began := time.Now()
		together(t, data, one, two)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the agents had it only after %s", took)
		}
		if n := one.repair.Load(); n == 0 || n == info.Size {
			t.Errorf("%d bytes of %d came by HTTP, want a part", n, info.Size)
		}
		if s := b.last(); s.Err == "" {
			t.Errorf("session %+v, want it to say why it ended", s)
		}
	})
}

func TestHalfPresentObject(t *testing.T) {
	story(t, 4<<20, CasterConfig{}, func(t *testing.T, b *box, info cache.Info, data []byte) {
		one, two := b.agent(0, 0.02, data), b.agent(1, 0.02, data)
		var wg sync.WaitGroup
		for _, a := range []*agent{one, two} {
			wg.Go(func() {
				offer, err := a.member.Resume(t.Context(), info.ID)
				if err != nil {
					t.Error(err)
					return
				}
				sink := contenttest.NewSink(info.Size, offer.Object.Layer)
				sink.Have(data[:1<<20], 0)
				sink.Have(data[2<<20:3<<20+100], 2<<20)
				if err := fill(t.Context(), offer, sink); err != nil {
					t.Error(err)
				}
				whole(t, sink, data)
				if sink.Again() > 0 {
					t.Errorf("%d bytes were written again", sink.Again())
				}
			})
		}
		wg.Wait()
		if st := one.catcher.Stats(); st.Bytes != 2<<20-100 {
			t.Errorf("catcher %+v, want the bytes that were missing", st)
		}
	})
}

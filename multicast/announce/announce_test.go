package announce

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

func newKey(t testing.TB) *Key {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sample is a notice that is in order.
func sample() Notice {
	return Notice{
		Epoch: 42, Sequence: 7, Issued: time.UnixMilli(1_700_000_000_123), Lifetime: 3 * time.Second, State: OnAir,
		ID: content.ID{Root: content.Hash{1, 2, 3}, Size: 200_000_000}, Title: "débian-12.iso",
		Group: netip.MustParseAddrPort("232.77.3.9:6003"), Feedback: netip.MustParseAddrPort("10.0.0.1:40001"),
		Node: 1, Instance: 513, SegmentSize: 1408, K: 128, Parity: 32, ExtentSize: 64 << 20, Sent: 12345,
	}
}

func seal(t testing.TB, k *Key, n Notice) []byte {
	t.Helper()
	b, err := k.Seal(n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKeyIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "box.key")
	made, err := LoadOrCreate(path)
	if err != nil {
		t.Fatal(err)
	}
	read, err := LoadOrCreate(path)
	if err != nil || read.Fingerprint() != made.Fingerprint() {
		t.Errorf("the key was read back as %v, %v", read, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v; want it for its owner alone", info.Mode(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("beside the key there is %v, %v", left, err)
	}
	for _, text := range []string{"", "no PEM", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreate(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("a damaged key %q gave %v, want an error that names the file", text, err)
		}
	}
}

func TestFingerprintText(t *testing.T) {
	f := newKey(t).Fingerprint()
	text := f.String()
	spaced := strings.ToUpper(text[:26]) + " : " + text[26:40] + "-" + text[40:] + "\n"
	for _, s := range []string{text, spaced} {
		if got, err := ParseFingerprint(s); err != nil || got != f {
			t.Errorf("%q was read as %s, %v", s, got, err)
		}
	}
	for _, s := range []string{"", text[1:], text + "a", strings.Repeat("1", 52), strings.Repeat("x", 1000)} {
		if _, err := ParseFingerprint(s); err == nil {
			t.Errorf("%q was taken as a fingerprint", s)
		}
	}
}

func TestNoticeComesBack(t *testing.T) {
	k := newKey(t)
	six := sample()
	six.Group = netip.MustParseAddrPort("[ff3e::77:1]:6003")
	six.Feedback = netip.MustParseAddrPort("[fd00::1]:40001")
	for _, n := range []Notice{sample(), six} {
		got, err := Open(seal(t, k, n), k.Fingerprint())
		if err != nil || got != n {
			t.Errorf("%+v came back as %+v, %v", n, got, err)
		}
	}
	long := sample()
	long.Title = strings.Repeat("ü", 300) + "\xff"
	b := seal(t, k, long)
	got, err := Open(b, k.Fingerprint())
	if err != nil || got.Title != strings.Repeat("ü", 127) || len(b) > MaxNotice {
		t.Errorf("a long title came back as %q in %d bytes, %v", got.Title, len(b), err)
	}
}

func TestNoticesOutOfBoundsAreNotSealed(t *testing.T) {
	k := newKey(t)
	for name, spoil := range map[string]func(*Notice){
		"state":    func(n *Notice) { n.State = 9 },
		"lifetime": func(n *Notice) { n.Lifetime = time.Hour },
		"object":   func(n *Notice) { n.ID.Size = 0 },
		"group":    func(n *Notice) { n.Group = netip.MustParseAddrPort("10.0.0.1:6003") },
		"feedback": func(n *Notice) { n.Feedback = netip.MustParseAddrPort("0.0.0.0:1") },
		"families": func(n *Notice) { n.Feedback = netip.MustParseAddrPort("[fd00::1]:1") },
		"node":     func(n *Notice) { n.Node = 0 },
		"segment":  func(n *Notice) { n.SegmentSize = 9 },
		"k":        func(n *Notice) { n.K = 250 },
		"extents":  func(n *Notice) { n.ExtentSize = 0 },
		"sent":     func(n *Notice) { n.Sent = -1 },
	} {
		n := sample()
		spoil(&n)
		if _, err := k.Seal(n); err == nil {
			t.Errorf("a notice with a bad %s was sealed", name)
		}
	}
}

func TestNoFlippedBitIsBelieved(t *testing.T) {
	k := newKey(t)
	good := seal(t, k, sample())
	for i := range good {
		b := append([]byte(nil), good...)
		b[i] ^= 1 << (i % 8)
		if _, err := Open(b, k.Fingerprint()); !errors.Is(err, ErrForged) && !errors.Is(err, ErrMalformed) {
			t.Fatalf("with bit %d of byte %d flipped: %v", i%8, i, err)
		}
	}
	for n := range good {
		if _, err := Open(good[:n], k.Fingerprint()); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrForged) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := Open(good, newKey(t).Fingerprint()); !errors.Is(err, ErrForged) {
		t.Errorf("a notice of another box: %v, want ErrForged", err)
	}
}

func TestSignaturesHaveOnePurpose(t *testing.T) {
	k := newKey(t)
	sig := k.Sign("a", []byte("msg"))
	if !Verify(k.Public(), "a", []byte("msg"), sig) || Verify(k.Public(), "b", []byte("msg"), sig) || Verify(k.Public()[:5], "a", []byte("msg"), sig) {
		t.Error("a signature holds for another purpose, or a key of another length")
	}
}

func TestBoardRefusesWhatIsOld(t *testing.T) {
	k := newKey(t)
	b := NewBoard(k.Fingerprint())
	b.Tune(42)
	n := sample()
	first := seal(t, k, n)
	if _, err := b.Post(first); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Post(first); !errors.Is(err, ErrStale) {
		t.Errorf("played again: %v, want ErrStale", err)
	}
	n.Sequence = 6
	if _, err := b.Post(seal(t, k, n)); !errors.Is(err, ErrStale) {
		t.Errorf("an older one: %v, want ErrStale", err)
	}
	n.Sequence, n.Epoch = 100, 41
	if _, err := b.Post(seal(t, k, n)); !errors.Is(err, ErrStale) {
		t.Errorf("of another epoch: %v, want ErrStale", err)
	}
	b.Tune(41)
	if len(b.List()) != 0 {
		t.Errorf("after another epoch began: %v", b.List())
	}
	if _, err := b.Post(seal(t, k, n)); err != nil {
		t.Errorf("of the epoch that the box is in: %v", err)
	}
}

func TestBoardIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no notice runs out while they are posted, however long that takes
		k := newKey(t)
		b := NewBoard(k.Fingerprint())
		b.Tune(42)
		n := sample()
		for i := range 2 * maxPosted {
			n.Sequence++
			n.ID.Size = int64(n.Sent) + int64(i) + 1
			if _, err := b.Post(seal(t, k, n)); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(b.List()); got != maxPosted {
			t.Errorf("%d notices are kept, want %d", got, maxPosted)
		}
	})
}

func TestBoardWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(t)
		b := NewBoard(k.Fingerprint())
		b.Tune(42)
		n := sample()
		post := func(s State) {
			n.Sequence++
			n.State = s
			if _, err := b.Post(seal(t, k, n)); err != nil {
				t.Error(err)
			}
		}
		post(Ended) // of an earlier session
		go func() {
			time.Sleep(time.Second)
			post(Due)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		got, err := b.Wait(ctx, n.ID)
		if err != nil || got.State != Due || time.Since(began) != time.Second {
			t.Errorf("Wait gave %v, %v after %s", got.State, err, time.Since(began))
		}
		time.Sleep(n.Lifetime)
		if _, ok := b.Get(n.ID); ok {
			t.Error("a notice held beyond its lifetime")
		}
		if _, err := b.Wait(ctx, n.ID); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait gave %v, want that the time is over", err)
		}
	})
}

func TestPinnedTLS(t *testing.T) {
	k := newKey(t)
	cert, err := k.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	defer served.Wait()
	defer l.Close()
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake() // the client judges
			_ = c.Close()
		}
	})
	dial := func(pin Fingerprint) error {
		c, err := tls.Dial("tcp", l.Addr().String(), PinnedTLS(pin))
		if err != nil {
			return err
		}
		return c.Close()
	}
	if err := dial(k.Fingerprint()); err != nil {
		t.Errorf("the pinned box: %v", err)
	}
	if err := dial(newKey(t).Fingerprint()); !errors.Is(err, ErrWrongKey) || !strings.Contains(err.Error(), k.Fingerprint().String()) {
		t.Errorf("another box: %v, want ErrWrongKey and its key", err)
	}
}

func FuzzNotice(f *testing.F) {
	k := newKey(f)
	good := seal(f, k, sample())
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, pub, err := parse(b)
		if err != nil {
			return
		}
		if again := n.check(); again != nil || len(pub) != 32 {
			t.Fatalf("parsed %+v, which is out of bounds: %v", n, again)
		}
		sealed, err := k.Seal(n)
		if err != nil {
			t.Fatalf("what was parsed cannot be sealed: %v", err)
		}
		if back, _, err := parse(sealed); err != nil || back != n {
			t.Fatalf("%+v came back as %+v, %v", n, back, err)
		}
	})
}

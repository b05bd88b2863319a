package digest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

// shelf has bodies by number, and counts how often one was opened.
type shelf struct {
	bodies map[uint64][]byte
	opened atomic.Int64
	gate   chan struct{} // nil, or held shut
}

type closer struct {
	io.ReaderAt
	gate chan struct{}
}

func (c closer) Close() error { return nil }

func (c closer) ReadAt(p []byte, off int64) (int, error) {
	if c.gate != nil {
		<-c.gate
	}
	return c.ReaderAt.ReadAt(p, off)
}

func (s *shelf) open(num uint64) (Body, error) {
	s.opened.Add(1)
	body, ok := s.bodies[num]
	if !ok {
		return nil, errors.New("gone")
	}
	return closer{bytes.NewReader(body), s.gate}, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// idOf is an identity of the right size; the Book does not look at the root of
// what is larger than a leaf.
func idOf(body []byte) content.ID {
	return content.ID{Root: sha256.Sum256(body), Size: int64(len(body))}
}

// running starts a Book and stops it at the end.
func running(t *testing.T, dir string, s *shelf) *Book {
	t.Helper()
	b := New(dir, s.open, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return b
}

func TestSumsAreThoseOfTheBytes(t *testing.T) {
	for _, n := range []int{0, 1, content.LeafSize, content.LeafSize + 1, 1<<20 - 1, 1 << 20, 5<<20 + 17} {
		body := random(n)
		b := running(t, t.TempDir(), &shelf{bodies: map[uint64][]byte{7: body}})
		sums, err := b.Sums(t.Context(), idOf(body), 7)
		if err != nil || sums.Whole != sha256.Sum256(body) || sums.PieceLength != 1<<20 {
			t.Fatalf("%d bytes: %+v, %v", n, sums, err)
		}
		rest := body
		for i, got := range sums.Pieces {
			piece := rest[:min(len(rest), 1<<20)]
			if rest = rest[len(piece):]; got != sha256.Sum256(piece) {
				t.Errorf("%d bytes: piece %d is wrong", n, i)
			}
		}
		if len(rest) > 0 {
			t.Errorf("%d bytes: %d are in no piece", n, len(rest))
		}
		if whole, ok := b.Whole(idOf(body)); n > 0 && (!ok || whole != sums.Whole) {
			t.Errorf("%d bytes: Whole %v %v", n, whole, ok)
		}
	}
}

func TestWholeOfALeafIsKnownAtOnce(t *testing.T) {
	b := New("", nil, slog.New(slog.DiscardHandler))
	body := random(content.LeafSize)
	if sum, ok := b.Whole(idOf(body)); !ok || sum != sha256.Sum256(body) {
		t.Error("the root of one leaf is its SHA-256 (BEP 52)")
	}
	if _, ok := b.Whole(idOf(random(content.LeafSize + 1))); ok {
		t.Error("nobody has computed that")
	}
}

func TestABodyIsReadOnceEvenOverARestart(t *testing.T) {
	dir, body := t.TempDir(), random(3<<20)
	s := &shelf{bodies: map[uint64][]byte{7: body}}
	b := running(t, dir, s)
	for range 3 {
		if _, err := b.Sums(t.Context(), idOf(body), 7); err != nil {
			t.Fatal(err)
		}
	}
	again := running(t, dir, s)
	if sums, err := again.Sums(t.Context(), idOf(body), 7); err != nil || sums.Whole != sha256.Sum256(body) || len(sums.Pieces) != 3 {
		t.Errorf("after a restart: %v %v", sums, err)
	}
	if n := s.opened.Load(); n != 1 {
		t.Errorf("read %d times", n)
	}
	path := filepath.Join(dir, idOf(body).String())
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[40] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	third := running(t, dir, s)
	if sums, err := third.Sums(t.Context(), idOf(body), 7); err != nil || sums.Pieces[0] != sha256.Sum256(body[:1<<20]) {
		t.Errorf("after a flip: %v %v", sums, err)
	}
	if n := s.opened.Load(); n != 2 {
		t.Errorf("a flipped file was believed: read %d times", n)
	}
}

func TestWhoeverCannotWaitIsToldHowFarItIs(t *testing.T) {
	body := random(2 << 20)
	s := &shelf{bodies: map[uint64][]byte{7: body}, gate: make(chan struct{})}
	b := running(t, "", s)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := b.Sums(ctx, idOf(body), 7)
	var busy *BusyError
	if !errors.As(err, &busy) || busy.Total != 2<<20 {
		t.Errorf("%v", err)
	}
	b.Ask(idOf(body), 7)
	close(s.gate)
	if _, err := b.Sums(t.Context(), idOf(body), 7); err != nil {
		t.Error(err)
	}
	if s.opened.Load() != 1 {
		t.Error("read more than once")
	}
}

func TestABodyThatGoesFailsAndCanBeAskedForAgain(t *testing.T) {
	body := random(1 << 20)
	s := &shelf{bodies: map[uint64][]byte{}}
	b := running(t, "", s)
	if _, err := b.Sums(t.Context(), idOf(body), 7); err == nil {
		t.Fatal("computed of nothing")
	}
	s.bodies[7] = body[:1000]
	if _, err := b.Sums(t.Context(), idOf(body), 7); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short body: %v", err)
	}
	s.bodies[7] = body
	if _, err := b.Sums(t.Context(), idOf(body), 7); err != nil {
		t.Error(err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	b := New("", nil, slog.New(slog.DiscardHandler))
	for i := range maxWhole + 100 {
		b.learn(content.ID{Size: int64(i + 1<<20)}, &Sums{})
	}
	if len(b.whole) != maxWhole || len(b.recent) != maxRecent {
		t.Errorf("%d and %d are kept", len(b.whole), len(b.recent))
	}
	for i := range maxQueue + 10 {
		b.Ask(content.ID{Size: int64(i + 1<<30)}, 1)
	}
	if len(b.jobs) != maxQueue {
		t.Errorf("%d jobs wait", len(b.jobs))
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(int64(5), []byte("short"))
	id := content.ID{Size: 3 << 20}
	f.Add(id.Size, encode(id, &Sums{Pieces: make([]content.Hash, 3)}))
	f.Fuzz(func(t *testing.T, size int64, text []byte) {
		id := content.ID{Size: size}
		if sums := decode(id, text); sums != nil && !bytes.Equal(encode(id, sums), text) {
			t.Error("not what was written")
		}
	})
}

package cache

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/content"
)

const infohash = "0123456789abcdef0123456789abcdef01234567"

// digestOf is the SHA-256 of data as a denial names it.
func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// settleDenials waits until the store was searched for all that is denied.
func settleDenials(t *testing.T, s *Store) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); len(s.denied.pending()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still to be searched for: %v", s.denied.pending())
		}
	}
}

// TestPurge: what is taken down goes, whatever it was taken down by, and does not
// come back under that name or with those bytes, until it is let back.
func TestPurge(t *testing.T) {
	t.Parallel()
	data := noise(600, 2*mib+5)
	small := noise(601, 4000)
	_, id := proof(t, data)
	for name, c := range map[string]struct {
		what, called string
		data         []byte
	}{
		"URL":          {"http://bad.example/x", "http://bad.example/x", data},
		"host":         {"bad.example", "http://bad.example/deep/x?y", small},
		"pattern":      {"*.bad.example/big/*", "https://dl.bad.example/big/x", small},
		"infohash":     {"btih:" + strings.ToUpper(infohash), "btih:" + infohash + "/dir/file", data},
		"identity":     {id.String(), "http://other.example/x", data},
		"digest":       {digestOf(data), "http://other.example/x", data},
		"small digest": {digestOf(small), "http://other.example/y", small},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, Config{})
			put(t, s, "http://good.example/x", noise(602, 4000))
			num := put(t, s, c.called, c.data)
			if err := s.Pin(num, true); err != nil {
				t.Fatal(err)
			}
			removed, err := s.Purge(c.what, "court order 7", "judge")
			if err != nil {
				t.Fatal(err)
			}
			settleDenials(t, s)
			if digest := strings.HasPrefix(c.what, "sha256:"); !digest && (len(removed) != 1 || removed[0].Num != num) || digest && len(removed) != 0 {
				t.Errorf("removed %+v", removed)
			}
			for range 2 {
				if has(s, num) || s.Stats().Objects != 1 || len(blobFiles(s.cfg.Dir)) != 0 {
					t.Error("what is taken down is here")
				}
				wantRefused(t, s, c.called, c.data)
				if denials := s.Denials(); len(denials) != 1 || denials[0].Why != "court order 7" || denials[0].By != "judge" {
					t.Errorf("denied are %+v", denials)
				}
				s = reopen(t, s)
			}
			if err := s.Lift(c.what, "appeal"); err != nil {
				t.Fatal(err)
			}
			if err := s.Lift(c.what, "appeal"); !errors.Is(err, ErrNotFound) {
				t.Errorf("lifted twice: %v", err)
			}
			s = reopen(t, s)
			put(t, s, c.called, c.data)
			wantObject(t, s, c.called, c.data)
			audit, err := s.Audit()
			var actions []string
			for _, entry := range audit {
				actions = append(actions, entry.Action)
			}
			if got := strings.Join(actions, " "); err != nil || got != "denied removed lifted" || audit[1].Object != num || audit[1].Title != c.called || audit[2].By != "appeal" {
				t.Errorf("audit is %+v, %v", audit, err)
			}
			balance(t, s)
		})
	}
}

// wantRefused tries to bring something back.
func wantRefused(t *testing.T, s *Store, called string, data []byte) {
	t.Helper()
	f, err := s.Create(Spec{Object: content.Object{Size: int64(len(data))}, Title: called, Public: true}, called, nil)
	if err == nil {
		f.Start(from("again", data, mib))
		<-f.Done()
		err = f.Err()
	}
	if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "court order 7") {
		t.Errorf("bringing it again gave %v", err)
	}
	if _, _, ok := s.Lookup(called); ok {
		t.Error("it came back")
	}
}

// TestPurgeWhileFilling: what is on its way in when it is taken down goes too:
// by its name at once, by its bytes when they are known.
func TestPurgeWhileFilling(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	data := noise(610, mib+7)
	twin := put(t, s, "http://good.example/x", data)
	f := create(t, s, "http://bad.example/x", content.Object{Size: int64(len(data))})
	g := make(gate)
	f.Start(g.source())
	g.bring(t, data, 0, mib)
	// The denial comes between the look at the name and the merge.
	if _, err := s.denied.set(listed{Denial{What: "bad.example", Why: "w", By: "b"}, true}); err != nil {
		t.Fatal(err)
	}
	g.bring(t, data, mib, int64(len(data)))
	close(g)
	<-f.Done()
	if info, _ := s.Get(twin); !errors.Is(f.Err(), ErrDenied) || len(info.Names) != 1 {
		t.Errorf("the fill ended with %v; the twin has names %v", f.Err(), info.Names)
	}
	f = create(t, s, "http://other.example/y", content.Object{Size: 5000})
	g = make(gate)
	f.Start(g.source())
	small := noise(611, 5000)
	if _, err := s.Purge(digestOf(small), "w", "b"); err != nil {
		t.Fatal(err)
	}
	g.bring(t, small, 0, 5000)
	close(g)
	<-f.Done()
	if !errors.Is(f.Err(), ErrDenied) {
		t.Errorf("bytes that were taken down meanwhile came in: %v", f.Err())
	}
	balance(t, s)
}

func TestPurgeSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	for _, what := range []string{"", "*", "http", "btih:12", "btih:" + infohash[:39] + "x", "sha256:00", "://", "a.example\nx"} {
		if _, err := s.Purge(what, "why", "who"); err == nil {
			t.Errorf("%q was taken down", what)
		}
	}
	if _, err := s.Purge("a.example", "", "who"); err == nil {
		t.Error("taken down without a reason")
	}
	if _, err := s.Purge("a.example", "why", ""); err == nil {
		t.Error("taken down by nobody")
	}
	if len(s.Denials()) != 0 {
		t.Errorf("denied are %v", s.Denials())
	}
}

// TestDenialsOutliveAVolume: the list and the audit are on every disk, also on one
// that was away when something was taken down.
func TestDenialsOutliveAVolume(t *testing.T) {
	t.Parallel()
	for which := range 2 {
		dir := t.TempDir()
		cfg := Config{Dir: filepath.Join(dir, "0"), Volumes: []string{filepath.Join(dir, "1")}}
		s := open(t, cfg)
		away := append([]string{cfg.Dir}, cfg.Volumes...)[1-which]
		kept := append([]string{cfg.Dir}, cfg.Volumes...)[which]
		if err := errors.Join(s.Close(), os.Rename(away, away+".away"), os.WriteFile(away, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		s = open(t, cfg)
		if _, err := s.Purge("bad.example", "w", "b"); err != nil {
			t.Fatal(err)
		}
		// Both are here once, then the other one is lost.
		if err := errors.Join(s.Close(), os.Remove(away), os.Rename(away+".away", away)); err != nil {
			t.Fatal(err)
		}
		s = open(t, cfg)
		if err := errors.Join(s.Close(), os.RemoveAll(kept)); err != nil {
			t.Fatal(err)
		}
		s = open(t, cfg)
		if err := s.Denied("http://bad.example/x"); !errors.Is(err, ErrDenied) {
			t.Errorf("volume %d lost: %v", which, err)
		}
	}
}

// TestDigestOfWhatComesBack: a disk that was away when a digest was taken down
// does not bring it back.
func TestDigestOfWhatComesBack(t *testing.T) {
	t.Parallel()
	s, data, nums := twoVolumes(t)
	s.lose(s.volumes[1], errors.New("pulled"))
	for _, what := range []string{digestOf(data[2]), digestOf(data[3])} {
		if _, err := s.Purge(what, "w", "b"); err != nil {
			t.Fatal(err)
		}
	}
	settleDenials(t, s)
	s.watch(s.volumes[1])
	settleDenials(t, s)
	for i, num := range nums {
		if has(s, num) != (i < 2) {
			t.Errorf("object %d is here: %v", i, i >= 2)
		}
	}
	balance(t, s)
}

// TestAuditAfterACrash: a line that was cut short takes no other with it.
func TestAuditAfterACrash(t *testing.T) {
	t.Parallel()
	s := open(t, Config{})
	long := strings.Repeat("long ", 30_000)
	for _, why := range []string{"first", long} {
		if _, err := s.Purge("a.example/"+why[:4], why, "b"); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(s.cfg.Dir, auditFile)
	st, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, st.Size()-9)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Purge("c.example", long, "b"); err != nil {
		t.Fatal(err)
	}
	audit, err := s.Audit()
	if err != nil || len(audit) != 2 || audit[0].Why != "first" || audit[1].Why != long {
		t.Errorf("%d entries, %v", len(audit), err)
	}
}

func FuzzDenied(f *testing.F) {
	list := encode(map[string]listed{"a.example": {Denial{What: "a.example", By: "b"}, true}})
	f.Add([]byte(list))
	f.Add([]byte(`{"x":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if json.Valid(text) { // past the checksum
			text = encode(deniedList{sumOf(text), text})
		}
		if err := os.WriteFile(filepath.Join(dir, deniedFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := openDenials([]string{dir}, nil)
		if err != nil {
			return
		}
		_ = d.check("http://a.example/x", content.ID{}) // must not panic
		if again, err := openDenials([]string{dir}, nil); err != nil || len(again.list) != len(d.list) {
			t.Errorf("read %v, then %v", d.list, err)
		}
	})
}

func FuzzAudit(f *testing.F) {
	f.Add([]byte("{\"what\":\"x\",\"action\":\"denied\"}\n{\"what"))
	f.Add([]byte("\n\n{}\nnull"))
	f.Fuzz(func(t *testing.T, text []byte) {
		whole := AuditEntry{Action: "denied", Title: "last"}
		all := parseAudit(append(append(text, '\n'), append(encode(whole), '\n')...))
		if n := len(all); n == 0 || all[n-1] != whole {
			t.Errorf("the last line is not heard: %v", all)
		}
	})
}

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// say runs one command with an answer to its question.
func (b *fakeBox) say(answer string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	args = append([]string{"--box", b.api.URL, "--token", token}, args...)
	code = Run(context.Background(), args, Env{
		Stdin: strings.NewReader(answer), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }, Version: "1.2",
	})
	return code, out.String(), errs.String()
}

func TestEvictAsks(t *testing.T) {
	box := newBox(t)
	one := client.Object{Num: 1, Title: "one", Readable: 1000}
	pinned := client.Object{Num: 2, Title: "two", Readable: 2000, Pinned: true}
	for num, o := range map[string]client.Object{"1": one, "2": pinned} {
		box.answers["GET /api/v1/objects/"+num] = o
		box.answers["DELETE /api/v1/objects/"+num] = o
	}
	box.answers["GET /api/v1/objects?match=%2A.test"] = []client.Object{one, pinned}
	box.answers["GET /api/v1/objects?match=a.test"] = []client.Object{one}
	box.answers["GET /api/v1/objects?match=none%2A"] = []client.Object{}
	box.answers["DELETE /api/v1/objects?match=%2A.test"] = client.Evicted{Objects: 2, Bytes: 3000}
	box.answers["DELETE /api/v1/objects?match=a.test"] = client.Evicted{Objects: 1, Bytes: 1000}
	for _, c := range []struct {
		args   []string
		answer string
		gone   []string // what was asked for to go
		says   string
	}{
		{[]string{"evict", "1"}, "", []string{"/1"}, "evicted object 1: one"},
		{[]string{"evict", "2"}, "", nil, "this evicts 1 object with 2.00 kB, 1 pinned; nothing was done (say --yes"},
		{[]string{"evict", "2"}, "n\n", nil, "nothing was done"},
		{[]string{"evict", "2"}, "Yes\n", []string{"/2"}, "evicted object 2"},
		{[]string{"evict", "1", "2", "--yes"}, "", []string{"/1", "/2"}, "evicted object 2"},
		{[]string{"evict", "1", "2", "--json"}, "y\n", nil, "say --yes"},
		{[]string{"evict", "*.test"}, "", nil, "this evicts 2 objects with 3.00 kB, 1 pinned"},
		{[]string{"evict", "*.test"}, "y\n", []string{"?match=*.test"}, "evicted 2 objects, 3.00 kB"},
		{[]string{"evict", "--match", "a.test"}, "", []string{"?match=a.test"}, "evicted 1 object, 1.00 kB"},
		{[]string{"evict", "none*"}, "", nil, "no object has a name that fits"},
		{[]string{"evict", "1", "99"}, "", nil, "99: the store has no such object"},
		{[]string{"evict", "*.test", "-y", "--json"}, "", []string{"?match=*.test"}, `"objects": 2`},
	} {
		box.mu.Lock()
		box.asked = nil
		box.mu.Unlock()
		_, out, errs := box.say(c.answer, c.args...)
		var gone []string
		for _, what := range box.asked {
			if rest, ok := strings.CutPrefix(strings.ReplaceAll(what, "%2A", "*"), "DELETE /api/v1/objects"); ok {
				gone = append(gone, rest)
			}
		}
		if !slices.Equal(gone, c.gone) || !strings.Contains(out+errs, c.says) {
			t.Errorf("%v, answer %q: evicted %q, said %q %q", c.args, c.answer, gone, out, errs)
		}
	}
}

func TestPurge(t *testing.T) {
	box := newBox(t)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	box.answers["POST /api/v1/takedowns"] = client.Purged{
		What: "http://a.test/x", Removed: []client.Object{{Num: 7, Title: "x\x1b[2J", Size: 5e6}}, Searching: true,
	}
	box.answers["GET /api/v1/takedowns"] = []client.Takedown{{What: "http://a.test/x", Why: "a court\nsaid so", By: "cli", At: at}}
	box.answers["GET /api/v1/takedowns/audit"] = []client.AuditLine{{What: "http://a.test/x", Why: "w", By: "admin", At: at, Action: "removed", Object: 7, Title: "x"}}
	box.answers["DELETE /api/v1/takedowns?what=http%3A%2F%2Fa.test%2Fx"] = client.Takedown{}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"purge", "http://a.test/x", "--why", "a court said so"}, Done, "http://a.test/x is taken down and may not come back; 1 object removed\n  object 7: x?[2J, 5.00 MB\nEvery body is being searched"},
		{[]string{"purge", "http://a.test/x", "--why", "w", "--json"}, Done, `"searching": true`},
		{[]string{"purge", "http://a.test/x"}, Failed, "say why, with --why"},
		{[]string{"purge"}, Failed, "say what to take down"},
		{[]string{"purge", "x.test", "--list"}, Failed, "or one of --list, --lift and --audit"},
		{[]string{"purge", "--list"}, Done, "a court?said so"},
		{[]string{"purge", "--list", "--json"}, Done, `"by": "cli"`},
		{[]string{"purge", "--audit"}, Done, "removed object 7 x"},
		{[]string{"purge", "--audit", "--json"}, Done, `"action": "removed"`},
		{[]string{"purge", "--lift", "http://a.test/x"}, Done, "http://a.test/x may come back"},
		{[]string{"purge", "--lift", "http://b.test/x"}, Failed, "lift http://b.test/x: "},
		{[]string{"purge", "--list", "--audit"}, Misused, "--audit"},
	} {
		code, out, errs := box.do(c.args...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("%v: exit %d, said %q %q, want %q", c.args, code, out, errs, c.says)
		}
	}
}

func TestScrub(t *testing.T) {
	box := newBox(t)
	running := client.Scrub{State: client.ScrubRunning, Objects: 1, TotalObjects: 2, Bytes: 1e6, TotalBytes: 2e6}
	done := client.Scrub{State: client.ScrubDone, Objects: 2, TotalObjects: 2, Bytes: 2e6, TotalBytes: 2e6, Damaged: 1}
	box.answers["POST /api/v1/scrub"] = running
	looks := 0
	box.answers["GET /api/v1/scrub"] = func() any {
		if looks++; looks < 2 {
			return running
		}
		return done
	}
	box.answers["DELETE /api/v1/scrub"] = client.Scrub{State: client.ScrubStopped, TotalObjects: 1}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"scrub", "--rate", "50MB"}, Done, "scrub done: 2 of 2 objects checked, 2.00 MB of 2.00 MB, 1 damaged"},
		{[]string{"scrub", "--json"}, Done, `"damaged": 1`},
		{[]string{"scrub", "-b"}, Done, "scrub is running: 1 of 2 objects checked"},
		{[]string{"scrub", "--status"}, Done, "scrub done"},
		{[]string{"scrub", "--stop"}, Done, "scrub stopped: 0 of 1 object checked"},
		{[]string{"scrub", "--rate", "fast"}, Failed, `--rate: size "fast"`},
	} {
		code, out, errs := box.do(c.args...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("%v: exit %d, said %q %q, want %q", c.args, code, out, errs, c.says)
		}
	}
}

func TestExplainSaysHowItIsKept(t *testing.T) {
	box := newBox(t)
	kept := &client.Kept{
		Here: []client.Range{{Off: 0, End: 10}, {Off: 20, End: 30}}, Parts: []client.Part{{Off: 0, End: 10, Source: "swarm"}, {Off: 20, End: 30, Source: "origin a.test"}},
		Vouched: "nothing but the connection", Volume: "/mnt/a", Segment: 3, Checked: 20, Service: "steam", Eviction: "never: it is pinned",
	}
	for i := range 20 {
		kept.Here = append(kept.Here, client.Range{Off: int64(100 + 20*i), End: int64(110 + 20*i)})
	}
	x := client.Explanation{Key: "http://a.test/", State: client.Partial, Reasons: []string{"a reason"}, Kept: kept}
	box.answers["GET /api/v1/explain?url=http%3A%2F%2Fa.test%2F"] = x
	box.answers["GET /api/v1/objects/7/explain"] = x
	for _, what := range []string{"http://a.test/", "7"} {
		code, out, errs := box.do("explain", what)
		for _, want := range []string{"http://a.test/: partial", "a reason", "/mnt/a, segment 3, counts for steam", "0-9, 20-29", "and 10 more", "origin a.test: 20-29, 10 B", "never: it is pinned", "20 B since the start"} {
			if code != Done || !strings.Contains(out, want) {
				t.Errorf("explain %s lacks %q: %s %s", what, want, out, errs)
			}
		}
	}
	var back client.Explanation
	if _, out, _ := box.do("explain", "7", "--json"); json.Unmarshal([]byte(out), &back) != nil || back.Kept == nil || len(back.Kept.Parts) != 2 {
		t.Errorf("as JSON: %s", out)
	}
}

func TestStatusOfVolumes(t *testing.T) {
	box := newBox(t)
	box.answers["GET /api/v1/status"] = client.Status{
		Volumes:  []client.Volume{{Dir: "/a", State: client.Well, Free: 4e9, Total: 6e9}, {Dir: "/b", State: client.Gone, Why: "input/output error"}},
		Services: []client.Service{{Name: "steam", Bytes: 1e9, Quota: 10e9}}, Damaged: 2, Repaired: 1, Takedowns: 3,
	}
	for _, what := range []string{"objects", "swarms", "casts"} {
		box.answers["GET /api/v1/"+what] = []any{}
	}
	_, out, _ := box.do("status")
	for _, want := range []string{"4.00 GB of 6.00 GB", "gone: input/output error", "steam", "10.0 GB", "2 blocks; repaired: 1 object", "taken down: 3"} {
		if !strings.Contains(out, want) {
			t.Errorf("status lacks %q:\n%s", want, out)
		}
	}
}

package journal

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// entry is a hit for a URL some seconds after noon.
func entry(second int, url string) *Entry {
	return &Entry{
		At: noon.Add(time.Duration(second) * time.Second), Client: netip.MustParseAddr("10.0.0.7"), Method: "GET", URL: url,
		Status: 200, Hit: true, Bytes: 10,
	}
}

func TestQuickHitsDoNotPushOutWhatPeopleAskFor(t *testing.T) {
	var j Journal
	slow, miss := entry(0, "http://a/slow"), entry(1, "http://a/miss")
	slow.First = 2 * time.Second
	miss.Hit, miss.Fwd = false, "uri-miss"
	j.Add(slow)
	j.Add(miss)
	for i := range 3 * maxHits {
		j.Add(entry(i+2, "http://a/hit"))
	}
	if n := len(j.Find(Query{})); n != maxHits+2 {
		t.Errorf("%d are kept", n)
	}
	for i := range 2 * maxOther {
		miss.At = noon.Add(time.Duration(i) * time.Hour)
		j.Add(miss)
	}
	if got := j.Find(Query{URL: "http://a/slow"}); len(got) != 1 || got[0].First != slow.First {
		t.Errorf("%+v", got)
	}
	if got := j.Find(Query{Limit: 3}); len(got) != 3 || !got[0].At.After(got[1].At) {
		t.Errorf("not the newest first: %+v", got)
	}
}

func TestQueries(t *testing.T) {
	var j Journal
	for i, url := range []string{"http://a/x", "http://a/y", "http://b/x"} {
		e := entry(i, url)
		e.Client = netip.MustParseAddr(fmt.Sprintf("10.0.%d.7", i))
		j.Add(e)
	}
	failed := entry(3, "http://c/x")
	failed.Status = 502
	j.Add(failed)
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{}, "http://c/x http://b/x http://a/y http://a/x"},
		{Query{URL: "http://a/x"}, "http://a/x"},
		{Query{URL: "http://a/*"}, "http://a/y http://a/x"},
		{Query{URL: "http://a/"}, ""},
		{Query{Client: netip.MustParsePrefix("10.0.1.0/24")}, "http://a/y"},
		{Query{Client: netip.MustParsePrefix("10.0.2.7/32")}, "http://b/x"},
		{Query{Since: noon.Add(2 * time.Second)}, "http://c/x http://b/x"},
		{Query{Until: noon.Add(time.Second)}, "http://a/y http://a/x"},
		{Query{Slow: true}, "http://c/x"},
		{Query{Limit: 1, URL: "*"}, "http://c/x"},
	} {
		var urls []string
		for _, e := range j.Find(c.q) {
			urls = append(urls, e.URL)
		}
		if got := strings.Join(urls, " "); got != c.want {
			t.Errorf("%+v: %q, want %q", c.q, got, c.want)
		}
	}
}

func TestSlow(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Entry)
		want bool
	}{
		{"quick", func(*Entry) {}, false},
		{"late first byte", func(e *Entry) { e.First = time.Second }, true},
		{"few bytes in a long time", func(e *Entry) { e.Took, e.Bytes = 10*time.Second, 1<<20 }, true},
		{"many bytes in a long time", func(e *Entry) { e.Took, e.Bytes = 10*time.Second, 1<<30 }, false},
		{"a tunnel", func(e *Entry) { e.Method, e.Took = "CONNECT", time.Hour }, false},
		{"failed", func(e *Entry) { e.Status = 504 }, true},
		{"refused", func(e *Entry) { e.Status = 403 }, false},
		{"the client left", func(e *Entry) { e.Status = 0 }, true},
	} {
		e := entry(0, "u")
		c.edit(e)
		if e.Slow() != c.want {
			t.Errorf("%s: %v", c.name, e.Slow())
		}
	}
}

func TestLongTextsAreCut(t *testing.T) {
	var j Journal
	url := "http://a/" + strings.Repeat("ä", 2*maxText)
	j.Add(entry(0, url))
	got := j.Find(Query{URL: url})
	if len(got) != 1 || len(got[0].URL) > maxText {
		t.Errorf("%+v", got)
	}
}

func TestWhatWasSlowOutlivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	var j Journal
	for i := range maxSlow + 5 {
		e := entry(i, fmt.Sprint("http://a/", i))
		e.Status = 502
		j.Add(e)
	}
	j.Add(entry(9999, "http://a/hit"))
	saved, err := j.Save(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if again, err := j.Save(path, saved); err != nil || again != saved {
		t.Error(again, err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("written although nothing had come")
	}
	if _, err := j.Save(path, 0); err != nil {
		t.Fatal(err)
	}
	var back Journal
	if err := back.Load(path); err != nil {
		t.Fatal(err)
	}
	list := back.Find(Query{})
	if len(list) != maxSlow || list[0] != j.Find(Query{Slow: true})[0] {
		t.Errorf("%d came back, the newest %+v", len(list), list[0])
	}
	e := entry(99999, "http://a/new")
	e.Status = 500
	back.Add(e)
	if list := back.Find(Query{}); len(list) != maxSlow || list[0].URL != "http://a/new" || list[maxSlow-1].URL != "http://a/6" {
		t.Errorf("the oldest did not go: %s, %s", list[0].URL, list[len(list)-1].URL)
	}
	if err := new(Journal).Load(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Error(err)
	}
}

func TestManyAddAndAsk(t *testing.T) {
	var j Journal
	var tasks sync.WaitGroup
	for i := range 8 {
		tasks.Go(func() {
			for n := range 1000 {
				j.Add(entry(n, fmt.Sprint(i)))
				if n%100 == 0 {
					j.Find(Query{Slow: n%200 == 0})
				}
			}
		})
	}
	tasks.Wait()
	if n := len(j.Find(Query{})); n != maxHits {
		t.Error(n)
	}
}

func BenchmarkAdd(b *testing.B) {
	var j Journal
	e := entry(0, "http://a/hit")
	b.ReportAllocs()
	for b.Loop() {
		j.Add(e)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("{\"at\":\"2026-03-01T12:00:00Z\",\"client\":\"10.0.0.7\"}\nx"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		var j Journal
		if err := j.Load(path); err != nil {
			t.Error(err)
		}
	})
}

func TestWhereTheTimeWent(t *testing.T) {
	const s = time.Second
	for want, e := range map[string]Entry{
		"":                                  {Took: 99 * time.Millisecond},
		"3s of 5s went until the origin":    {Asked: 3 * s, Answered: 4 * s, First: 5 * s, Took: 5 * s},
		"3s of 5s went for the origin":      {Asked: s, Answered: 4 * s, First: 4 * s, Took: 5 * s},
		"3s of 4s went from there":          {Answered: s, First: 4 * s, Took: 4 * s},
		"9s of 10s went to send the rest":   {Answered: s, First: s, Took: 10 * s},
		"4s of 5s went waiting":             {Collapsed: true, First: 4 * s, Took: 5 * s},
		"4s of 5s went to read":             {Hit: true, First: 4 * s, Took: 5 * s},
		"5s of 5s went trying to reach":     {Fwd: "uri-miss", Took: 5 * s},
		"2s of 2s went until the first":     {First: 2 * s, Took: 2 * s},
		"30s of 31s went to send the rest:": {Hit: true, First: s, Took: 31 * s},
	} {
		if got := e.Where(); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%+v: %q, want %q", e, got, want)
		}
	}
}

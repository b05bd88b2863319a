package multicast

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// FuzzDesk holds the desk to answering whatever an agent, or anybody, sends.
func FuzzDesk(f *testing.F) {
	for _, body := range []string{
		`{"name":"pc-1"}`, `{"name":"pc-1","token":"00"}`, `{"url":"http://origin/file","header":{"Accept":["*/*"]}}`,
		`{"name":"btih:00/x"}`, `{"id":"` + strings.Repeat("0", 64) + `-0"}`, `{"id":"` + strings.Repeat("a", 64) + `-5"}`,
		`{"url":"http://[::1]:x/"}`, `{"state":"joined","id":"` + strings.Repeat("a", 64) + `-5","loss":1e308,"received":-1}`,
		`[]`, `null`, `{"header":{"Accept":null}}`,
	} {
		for _, path := range []string{"enrol", "want", "report"} {
			f.Add(path, body)
		}
	}
	store, err := cache.Open(cache.Config{Dir: f.TempDir(), MinFree: 1, Small: true}, testLog())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = store.Close() })
	b := stillBox(f, store)
	b.roster.write = func(string, []byte) error { return nil } // or the disk sets the pace
	a, err := b.roster.Enrol("one", "")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path, body string) {
		if path == "enrol" && len(b.roster.List()) > 3 { // or the file grows and grows
			for _, a := range b.roster.List()[1:] {
				if err := b.roster.Revoke(a.Node); err != nil {
					t.Fatal(err)
				}
			}
		}
		path = "/agent/" + strings.Map(func(r rune) rune {
			if r < 'a' || r > 'z' {
				return 'x'
			}
			return r
		}, path)
		status, text := b.call(http.MethodPost, path, "Bearer 2."+a.Secret.token(), body)
		if status == http.StatusOK && !json.Valid([]byte(text)) {
			t.Errorf("answer %q is not JSON", text)
		}
		if status >= 500 && status != http.StatusServiceUnavailable {
			t.Errorf("%d %s", status, text)
		}
	})
}

// FuzzAnswer holds an agent to believing no answer whose proof does not fit.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"state":"http","id":"` + strings.Repeat("a", 64) + `-5","layer":"AAAA"}`))
	f.Add([]byte(`{"state":"cast","channel":{"epoch":"1","mode":"ssm","group":"232.1.1.1:1","sources":["10.0.0.1"]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var a answer
		if json.Unmarshal(body, &a) != nil {
			return
		}
		if a.Channel.check() == nil && a.Channel.Group.IsValid() && !a.Channel.Group.Addr().IsMulticast() {
			t.Errorf("channel %+v was believed", a.Channel)
		}
		if l, err := a.layer(); err == nil && l.Root() != a.ID.Root {
			t.Errorf("a layer that does not fit was believed")
		}
	})
}

// FuzzDescriptor holds the receiver to extents that lie within their object.
func FuzzDescriptor(f *testing.F) {
	id := content.ID{Root: content.Hash{1, 2, 3}, Size: 200 << 20}
	f.Add(descriptor{id: id, index: 2, off: 2 * extentSize, length: extentSize}.append(nil))
	f.Add(descriptor{id: id, index: 3, off: 3 * extentSize, length: 8 << 20}.append(nil))
	f.Add(descriptor{id: id, index: 4, off: 4 * extentSize, length: 1}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDescriptor(b, id, extentSize)
		if err == nil && (d.id != id || d.off < 0 || d.length <= 0 || d.off+d.length > id.Size) {
			t.Errorf("extent %+v lies outside of %s", d, id)
		}
	})
}

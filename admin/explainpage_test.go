package admin

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache/journal"
)

func TestExplainPage(t *testing.T) {
	now := time.Now()
	m := &memoir{}
	m.Add(&journal.Entry{
		At: now, Client: netip.MustParseAddr("10.0.0.7"), Method: "GET", URL: "http://dead.test/<b>", Status: 504, Fwd: "uri-miss",
		Why: "nothing stored for this URL (RFC 9111 §4)", Took: 3 * time.Second, First: 3 * time.Second,
	})
	parts := sample(now)
	parts.Requests = m
	s := newServer(t, Config{}, parts)
	num := ""
	for _, i := range parts.Objects.List() {
		if i.Complete {
			num = i.Title
		}
	}
	for _, c := range []struct {
		what   string
		status int
		want   []string
	}{
		{"", 200, []string{"Slow or failed lately", "504", "uri-miss", "nothing stored for this URL", "http://dead.test/&lt;b&gt;", "3s"}},
		{"http://nothing.test/", 200, []string{"absent", "the next request goes to the origin"}},
		{"http://dead.test/<b>", 200, []string{"absent", "10.0.0.7"}},
		{num, 200, []string{"complete", "Vouched for by", "Eviction"}},
		{"http://[::1/", 422, []string{"role=\"alert\"", "[::1"}},
		{"no such object", 422, []string{"role=\"alert\""}},
		{strings.Repeat("x", maxAsked+1), 400, []string{"longer than any address"}},
	} {
		w := request(s, "GET", "/explain?url="+url.QueryEscape(c.what), "", "Authorization", bearer(t, s))
		page := w.Body.String()
		if w.Code != c.status {
			t.Errorf("%.40q: status %d, want %d", c.what, w.Code, c.status)
		}
		for _, want := range c.want {
			if !strings.Contains(page, want) {
				t.Errorf("%.40q: %q is missing in\n%s", c.what, want, page)
			}
		}
		if strings.Contains(page, "<b>") {
			t.Errorf("%.40q: foreign text is markup", c.what)
		}
	}
	if w := request(s, "GET", "/explain", ""); w.Code != http.StatusSeeOther && w.Code != http.StatusFound {
		t.Errorf("without a login: %d", w.Code)
	}
	if page := request(s, "GET", "/", "", "Authorization", bearer(t, s)).Body.String(); !strings.Contains(page, `href="/explain"`) {
		t.Error("the panel does not lead there")
	}
}

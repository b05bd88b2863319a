package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

func TestExplainTellsOfTheFutureAndThePast(t *testing.T) {
	box := newBox(t)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	slow := client.Request{
		At: at, Client: "10.0.0.7", Method: "GET", URL: "http://a.test/", Status: 200, Fwd: "uri-miss", Stored: true, Bytes: 1_200_000,
		Why: "nothing stored for this URL (RFC 9111 §4)", Asked: 3, Answered: 4200, First: 4200.5, Took: 5000, Where: "4.197s of 5s went for the origin to begin its answer",
	}
	box.answers["GET /api/v1/explain?url=http%3A%2F%2Fa.test%2F"] = client.Explanation{
		Key: "http://a.test/", State: client.Complete, Reasons: []string{"a reason"},
		Decision: &client.Decision{Action: "serve", StaleAt: time.Now().Add(time.Hour + time.Second/2), ErrorUntil: time.Now().Add(2*time.Hour + time.Second/2)},
		Past:     []client.Request{slow, {At: at, Client: "10.0.0.8", Method: "GET", Status: 200, Hit: true, Why: "fresh by max-age"}},
	}
	box.answers["GET /api/v1/requests"] = []client.Request{}
	box.answers["GET /api/v1/requests?slow=true"] = []client.Request{slow}
	box.answers["GET /api/v1/requests?client=10.0.0.0%2F8&limit=5&url=http%3A%2F%2Fa.test%2F%2A"] = []client.Request{slow, {Collapsed: true}}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"http://a.test/"}, []string{
			"a reason", "stale    ", "(in 1h0m", "served stale if the origin fails until ", "past\n2026-03-01 12:00:00  10.0.0.7  GET 200  miss (uri-miss)  1.20 MB in 5s, first byte after 4.2005s",
			"went for the origin to begin", "10.0.0.8  GET 200  hit", "fresh by max-age",
		}},
		{[]string{"--past"}, []string{"remembers no such request"}},
		{[]string{"--slow"}, []string{"10.0.0.7", "http://a.test/"}},
		{[]string{"http://a.test/*", "--client", "10.0.0.0/8", "--limit", "5"}, []string{"10.0.0.7", "client left  miss, shared"}},
	} {
		code, out, errs := box.do(append([]string{"explain"}, c.args...)...)
		for _, want := range c.want {
			if code != Done || !strings.Contains(out, want) {
				t.Errorf("%v lacks %q: %s %s", c.args, want, out, errs)
			}
		}
	}
	if code, _, errs := box.do("explain"); code != Failed || !strings.Contains(errs, "say what") {
		t.Errorf("without anything: %d %s", code, errs)
	}
}

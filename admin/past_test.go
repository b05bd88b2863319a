package admin

import (
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache/journal"
)

// memoir implements Requests.
type memoir struct{ journal.Journal }

func (m *memoir) Past(q journal.Query) []journal.Entry { return m.Find(q) }

func TestPastRequests(t *testing.T) {
	now := time.Now()
	m := &memoir{}
	for i, e := range []journal.Entry{
		{URL: "http://elsewhere.test/", Status: 200, Hit: true, Why: "fresh by max-age (RFC 9111 §4.2.1)"},
		{URL: "http://elsewhere.test/", Status: 502, Fwd: "uri-miss", Took: 3 * time.Second, First: 3 * time.Second},
		{URL: "http://other.test/", Status: 200, Fwd: "uri-miss", Answered: 5 * time.Second, First: 5 * time.Second, Took: 5 * time.Second},
	} {
		e.At, e.Client, e.Method = now.Add(time.Duration(i-30)*time.Hour), netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), "GET"
		m.Add(&e)
	}
	parts := sample(now)
	parts.Requests = m
	s := newServer(t, Config{}, parts)
	for _, c := range []struct {
		query string
		want  int
		where string // of the first
	}{
		{"", 3, "5s of 5s went for the origin to begin its answer"},
		{"slow=true", 2, "5s of 5s went for the origin to begin its answer"},
		{"url=" + url.QueryEscape("http://elsewhere.test/"), 2, "3s of 3s went trying to reach the origin, in vain"},
		{"client=10.0.0.0", 1, ""},
		{"client=10.0.0.0/31", 2, "3s of 3s went trying to reach the origin, in vain"},
		{"since=" + url.QueryEscape(now.Add(-29*time.Hour-time.Minute).Format(time.RFC3339)), 2, "5s of 5s went for the origin to begin its answer"},
		{"until=" + url.QueryEscape(now.Add(-29*time.Hour-time.Minute).Format(time.RFC3339)), 1, ""},
		{"limit=1", 1, "5s of 5s went for the origin to begin its answer"},
	} {
		list := answer[[]client.Request](t, s, "GET", "/api/v1/requests?"+c.query, "")
		if len(list) != c.want || c.want > 0 && list[0].Where != c.where {
			t.Errorf("%q: %+v", c.query, list)
		}
	}
	for _, bad := range []string{"client=x", "since=yesterday", "limit=0"} {
		query(t, s, "GET", "/api/v1/requests?"+bad, "", 422)
	}
	x := answer[client.Explanation](t, s, "GET", "/api/v1/explain?url="+url.QueryEscape("http://elsewhere.test/"), "")
	if len(x.Past) != 2 || x.Past[0].Status != 502 || x.Past[1].Why != "fresh by max-age (RFC 9111 §4.2.1)" {
		t.Errorf("%+v", x.Past)
	}
}

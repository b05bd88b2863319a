package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/httpcache"
	"github.com/cistern-edge/cistern/cache/journal"
)

// explain says what the store holds for a plain GET of a URL, and what
// RFC 9111 makes of it. It asks no origin.
func (s *Server) explain(address string) (client.Explanation, error) {
	u, err := url.Parse(address)
	if err != nil {
		return client.Explanation{}, huma.Error422UnprocessableEntity(err.Error())
	}
	key, err := httpcache.Key(u)
	if err != nil {
		return client.Explanation{}, huma.Error422UnprocessableEntity(err.Error())
	}
	e := client.Explanation{URL: address, Key: key, State: "absent", Past: s.remembered(journal.Query{URL: key, Limit: pastOfURL})}
	if err := s.parts.Objects.Denied(key); err != nil {
		e.State, e.Reasons = "denied", []string{err.Error(), "a request now would be answered 451, and nobody asked for it"}
		return e, nil
	}
	info, meta, ok := s.parts.Objects.Lookup(key)
	if !ok {
		e.Reasons = []string{"nothing is stored under this key: the next request goes to the origin"}
		return e, nil
	}
	if err := s.keep(&e, info); err != nil {
		return e, err
	}
	var head httpcache.Response
	if json.Unmarshal(meta, &head) == nil && head.Status != 0 {
		decide(&e, u, &head)
	}
	return e, nil
}

// pastOfURL is how many past requests are told with an explanation.
const pastOfURL = 10

// decide adds what RFC 9111 makes of a stored response.
func decide(e *client.Explanation, u *url.URL, head *httpcache.Response) {
	x := httpcache.Explain(&http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}}, head, time.Now())
	e.Reasons = append(e.Reasons, x.Steps...)
	e.Reasons = append(e.Reasons, fmt.Sprintf("a request now would %s: %s (age %v, fresh for another %v)",
		verb(x.Action), x.Why, x.Age.Round(time.Second), max(x.TTL, 0).Round(time.Second)))
	e.Decision = &client.Decision{
		Action: x.Action.String(), Rule: x.Why, Age: int64(x.Age / time.Second),
		StaleAt: x.StaleAt, RenewUntil: x.RenewUntil, ErrorUntil: x.ErrorUntil,
	}
}

// explainObject says how an object is kept.
func (s *Server) explainObject(which string) (client.Explanation, error) {
	info, err := s.find(which)
	if err != nil {
		return client.Explanation{}, err
	}
	e := client.Explanation{Key: info.Title}
	if len(info.Names) > 0 {
		e.Key = info.Names[0]
	}
	return e, s.keep(&e, info)
}

// keep adds what the store says of an object.
func (s *Server) keep(e *client.Explanation, info cache.Info) error {
	x, err := s.parts.Objects.Explain(info.Num)
	if err != nil {
		return err
	}
	o := object(x.Info)
	e.Object, e.State = &o, o.State
	e.Reasons = append(e.Reasons, present(x.Info)...)
	k := client.Kept{
		Here: []client.Range{}, Parts: []client.Part{}, Vouched: x.Vouched, Volume: x.Volume, Segment: x.Segment,
		Checked: x.Checked, Service: x.Service, Eviction: x.Eviction,
	}
	for _, r := range x.Here {
		k.Here = append(k.Here, client.Range{Off: r.Off, End: r.End})
	}
	for _, p := range x.Parts {
		k.Parts = append(k.Parts, client.Part{Off: p.Off, End: p.End, Source: p.Source})
	}
	e.Kept = &k
	return nil
}

// verb says what a cache does, as part of a sentence.
func verb(a httpcache.Action) string {
	switch a {
	case httpcache.Serve:
		return "be answered from the store"
	case httpcache.Revalidate:
		return "ask the origin whether it has changed"
	case httpcache.GatewayTimeout:
		return "be answered 504"
	default:
		return "go to the origin"
	}
}

// present says what of an object is here.
func present(i cache.Info) []string {
	var said []string
	switch {
	case i.Complete:
		said = append(said, fmt.Sprintf("object %d has all %d bytes", i.Num, i.Size))
	case i.Filling:
		said = append(said, fmt.Sprintf("object %d is being filled: %d bytes are readable; more requests join this fill", i.Num, i.Readable))
	default:
		said = append(said, fmt.Sprintf("object %d has %d bytes and nobody fills it: the next request resumes it", i.Num, i.Readable))
	}
	if !i.Public {
		said = append(said, "it is not publicly cacheable: no other name, no cast, no torrent")
	}
	return said
}

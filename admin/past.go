package admin

import (
	"net/netip"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache/journal"
)

// Requests remembers how the last requests were answered; *proxy.Server
// implements it.
type Requests interface {
	// Past gives them newest first.
	Past(q journal.Query) []journal.Entry
}

// askPast is journal.Query as the API has it.
type askPast struct {
	URL    string    `query:"url" maxLength:"8192" doc:"What they were for; with * at the end, how that begins"`
	Client string    `query:"client" maxLength:"64" doc:"Address of the client, or a network"`
	Since  time.Time `query:"since" doc:"Not before"`
	Until  time.Time `query:"until" doc:"Not after"`
	Slow   bool      `query:"slow" doc:"Only what was slow or failed"`
	Limit  int       `query:"limit" minimum:"1" maximum:"10000" default:"100" doc:"How many at most"`
}

// past answers from the journal.
func (s *Server) past(in *askPast) ([]client.Request, error) {
	q := journal.Query{URL: in.URL, Since: in.Since, Until: in.Until, Slow: in.Slow, Limit: in.Limit}
	if in.Client != "" {
		var err error
		if q.Client, err = network(in.Client); err != nil {
			return nil, huma.Error422UnprocessableEntity(err.Error())
		}
	}
	return s.remembered(q), nil
}

// remembered is what the journal has.
func (s *Server) remembered(q journal.Query) []client.Request {
	list := []client.Request{}
	if s.parts.Requests == nil {
		return list
	}
	for _, e := range s.parts.Requests.Past(q) {
		list = append(list, client.Request{
			At: e.At, Client: e.Client.String(), Method: e.Method, URL: e.URL, Status: e.Status, Hit: e.Hit, Fwd: e.Fwd,
			FwdStatus: e.FwdStatus, Stored: e.Stored, Collapsed: e.Collapsed, Why: e.Why, Detail: e.Detail, Object: e.Object,
			Bytes: e.Bytes, Asked: ms(e.Asked), Answered: ms(e.Answered), First: ms(e.First), Took: ms(e.Took), Where: e.Where(),
		})
	}
	return list
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// network reads an address or a network.
func network(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap().WithZone("")
		return a.Prefix(a.BitLen())
	}
	return netip.ParsePrefix(text)
}

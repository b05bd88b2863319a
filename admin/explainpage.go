package admin

import (
	"net/http"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache/journal"
)

// explainView is what the page about one URL sees.
type explainView struct {
	Now     time.Time
	What    string
	Problem string
	// Answer is nil as long as nothing was asked.
	Answer *client.Explanation
	Here   []client.Range
	Parts  []client.Part
	More   int // ranges and parts that are not shown
	// Slow are the last requests that were slow or failed.
	Slow []client.Request
}

const (
	maxAsked  = 8192 // bytes of what is asked about
	slowRows  = 30
	rangeRows = 12
)

// explainPage shows what `cistern explain` says, and what was slow or failed.
func (s *Server) explainPage(w http.ResponseWriter, r *http.Request) {
	v := explainView{Now: time.Now(), What: strings.TrimSpace(r.URL.Query().Get("url")), Slow: s.remembered(journal.Query{Slow: true, Limit: slowRows})}
	status := http.StatusOK
	switch {
	case v.What == "":
	case len(v.What) > maxAsked:
		v.What, v.Problem, status = "", "That is longer than any address.", http.StatusBadRequest
	default:
		x, err := s.explainAny(v.What)
		if err != nil {
			v.Problem, status = err.Error(), http.StatusUnprocessableEntity
			break
		}
		v.Answer = &x
		if k := x.Kept; k != nil {
			v.Here, v.Parts = k.Here[:min(len(k.Here), rangeRows)], k.Parts[:min(len(k.Parts), rangeRows)]
			v.More = len(k.Here) - len(v.Here) + len(k.Parts) - len(v.Parts)
		}
	}
	s.pages.write(w, status, "explain", v)
}

// explainAny takes a URL, or whatever names an object.
func (s *Server) explainAny(what string) (client.Explanation, error) {
	if lower := strings.ToLower(what); strings.HasPrefix(lower, "http://") || strings.HasPrefix(lower, "https://") {
		return s.explain(what)
	}
	return s.explainObject(what)
}

package admin

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// listener remembers what it was told to answer.
type listener struct {
	*http.ServeMux
	patterns map[string]bool
}

func (l listener) HandleFunc(pattern string, do func(http.ResponseWriter, *http.Request)) {
	l.patterns[pattern] = true
	l.ServeMux.HandleFunc(pattern, do)
}

// TestAllIsDescribed: what the API answers is in its description, and the other
// way round.
func TestAllIsDescribed(t *testing.T) {
	s := newServer(t, Config{}, sample(time.Now()))
	answered := listener{http.NewServeMux(), map[string]bool{}}
	described := map[string]bool{"/api/": true} // what there is not is told by the rest
	for path, item := range s.register(answered).Paths {
		for method, there := range map[string]bool{
			"GET": item.Get != nil, "POST": item.Post != nil, "PUT": item.Put != nil, "DELETE": item.Delete != nil,
			"PATCH": item.Patch != nil, "HEAD": item.Head != nil, "OPTIONS": item.Options != nil, "TRACE": item.Trace != nil,
		} {
			if there {
				described[method+" "+apiPrefix+path] = true
			}
		}
	}
	if len(described) < 30 || !maps.Equal(answered.patterns, described) {
		t.Errorf("it answers\n%s\nand describes\n%s", lines(answered.patterns), lines(described))
	}
}

func lines(set map[string]bool) string { return strings.Join(slices.Sorted(maps.Keys(set)), "\n") }

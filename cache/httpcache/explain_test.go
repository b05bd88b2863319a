package httpcache

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestExplainGivesEachStep(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	ask := func(fields ...string) *http.Request {
		return &http.Request{Method: http.MethodGet, Header: header(fields...)}
	}
	for _, c := range []struct {
		name   string
		req    *http.Request
		fields []string
		why    string
		steps  []string
		stale  time.Duration // from now
	}{
		{
			"fresh", ask(),
			[]string{"Cache-Control: max-age=60", "Age: 10", `ETag: "e"`},
			"fresh by max-age (RFC 9111 §4.2.1)",
			[]string{"age is 10s", "fresh for 1m0s by max-age", "(RFC 9111 §4.2.3)", "a 304 renews it"},
			50 * time.Second,
		},
		{
			"heuristic", ask(),
			[]string{"Last-Modified: " + at(-100*time.Minute)},
			"fresh by heuristic: a tenth",
			[]string{"the guess is 10m0s: 10 % of the 1h40m0s from Last-Modified to Date, at most 24h0m0s (RFC 9111 §4.2.2)"},
			10 * time.Minute,
		},
		{
			"immutable", ask("Cache-Control: max-age=0"),
			[]string{"Cache-Control: max-age=60, immutable"},
			"(RFC 8246 §2.1)",
			[]string{"immutable", "no validator"},
			time.Minute,
		},
		{
			"targeted", ask(),
			[]string{"CDN-Cache-Control: max-age=5", "Cache-Control: no-store"},
			"fresh by CDN-Cache-Control max-age (RFC 9213 §2.2)",
			nil, 5 * time.Second,
		},
		{
			"stale, renewed behind", ask(),
			[]string{"Cache-Control: max-age=5, stale-while-revalidate=30, stale-if-error=60", "Age: 20"},
			"stale-while-revalidate (RFC 5861 §3)",
			[]string{"for 30s more", "for 1m0s more"},
			-15 * time.Second,
		},
		{
			"never stale", ask(),
			[]string{"Cache-Control: max-age=5, must-revalidate", "Age: 20", "Vary: Accept"},
			"must-revalidate asks for validation (RFC 9111 §4.2.4)",
			[]string{"never served stale: must-revalidate", "whose Accept"},
			-15 * time.Second,
		},
		{"nothing", ask(), []string{`ETag: "e"`}, "stale by default: nothing gives it freshness", nil, 0},
		{"reload", ask("Cache-Control: no-cache"), []string{"Cache-Control: max-age=60"}, "request no-cache (RFC 9111 §5.2.1.4)", nil, time.Minute},
	} {
		h := header(c.fields...)
		h.Set("Date", now.Format(http.TimeFormat))
		x := Explain(c.req, NewResponse(c.req, 200, h, now, now), now)
		if !strings.Contains(x.Why, c.why) {
			t.Errorf("%s: %q, want %q", c.name, x.Why, c.why)
		}
		all := strings.Join(x.Steps, "\n")
		for _, step := range c.steps {
			if !strings.Contains(all, step) {
				t.Errorf("%s: steps lack %q:\n%s", c.name, step, all)
			}
		}
		if got := x.StaleAt.Sub(now); got != c.stale {
			t.Errorf("%s: stale in %v, want %v", c.name, got, c.stale)
		}
		if strings.Contains(x.Why, "(§") {
			t.Errorf("%s: %q does not name its document", c.name, x.Why)
		}
	}
}

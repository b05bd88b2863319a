package httpcache

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Explanation is what Decide decides about a request, with all that it looked
// at. Times that do not apply are zero.
type Explanation struct {
	Verdict
	// Lifetime is how long the response stays fresh in all, From what says so, as
	// FreshnessLifetime has it.
	Lifetime time.Duration
	From     string
	// StaleAt is when it ceases, or ceased, to be fresh.
	StaleAt time.Time
	// RenewUntil is until when it may be served stale while it is asked for again
	// behind the client's back, ErrorUntil if the origin fails.
	RenewUntil, ErrorUntil time.Time
	// Steps are sentences that lead to the verdict, each with its section.
	Steps []string
}

// Explain says what Decide decides about req given stored, which is not nil, and
// why, step by step.
func Explain(req *http.Request, stored *Response, now time.Time) Explanation {
	cc, field := stored.directives()
	x := Explanation{Verdict: Decide(req, stored, now)}
	x.Lifetime, x.From = stored.lifetime(cc, field)
	age := CurrentAge(stored, now)
	x.StaleAt = now.Add(x.Lifetime - age)
	x.say("its age is %v: the time since it was made, on the way included (RFC 9111 §4.2.3)", seconds(age))
	x.sayLifetime(stored)
	if cc.has("immutable") {
		x.say("it is immutable: while it is fresh, a reload does not ask the origin (RFC 8246 §2)")
	}
	x.sayStale(cc)
	if names := VaryFields(stored.Header); len(names) > 0 {
		x.say("it answers requests whose %s are those of the request that brought it (RFC 9111 §4.1)", strings.Join(names, ", "))
	}
	if c := conditional(stored); c != nil {
		x.say("it has a validator: a 304 renews it without its body (RFC 9111 §4.3)")
	} else {
		x.say("it has no validator: once stale it is fetched whole (RFC 9111 §4.3.1)")
	}
	return x
}

func (x *Explanation) say(format string, args ...any) {
	x.Steps = append(x.Steps, fmt.Sprintf(format, args...))
}

func (x *Explanation) sayLifetime(stored *Response) {
	if x.From != fromHeuristic {
		x.say("it stays fresh for %v by %s", seconds(x.Lifetime), rule(x.From))
		return
	}
	modified, _ := stored.lastModified()
	x.say("nothing says how long it stays fresh; the guess is %v: 10 %% of the %v from Last-Modified to Date, at most %v (RFC 9111 §4.2.2)",
		seconds(x.Lifetime), seconds(stored.date().Sub(modified)), heuristicCap)
}

// sayStale says what may be done with it once it is stale.
func (x *Explanation) sayStale(cc directives) {
	if why := staleProhibited(cc); why != "" {
		x.say("it is never served stale: %s (RFC 9111 §4.2.4)", why)
		return
	}
	x.say("it may be served stale while the origin cannot be reached (RFC 9111 §4.2.4)")
	if d := cc.seconds("stale-while-revalidate"); d > 0 {
		x.RenewUntil = x.StaleAt.Add(d)
		x.say("for %v more it may be served stale while it is asked for again (RFC 5861 §3)", seconds(d))
	}
	if d := cc.seconds("stale-if-error"); d > 0 {
		x.ErrorUntil = x.StaleAt.Add(d)
		x.say("for %v more it may be served stale if the origin answers with an error (RFC 5861 §4)", seconds(d))
	}
}

func seconds(d time.Duration) time.Duration { return d.Round(time.Second) }

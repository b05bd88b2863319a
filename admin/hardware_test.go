package admin

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// bench measures until it is told to end, or is stopped.
type bench struct {
	told  chan struct{} // closed once tell was called
	end   chan struct{}
	quick bool
}

func (b *bench) Qualify(ctx context.Context, order client.QualifyOrder, tell func(client.Qualification)) (client.Qualification, error) {
	b.quick = order.Quick
	q := client.Qualification{State: client.QualifyRunning, Step: "disk", Percent: 40, NICs: []client.NIC{{Name: "eth0"}}}
	tell(q)
	close(b.told)
	select {
	case <-ctx.Done():
		q.State = client.QualifyStopped
		return q, ctx.Err()
	case <-b.end:
	}
	q.State, q.Ended = client.QualifyDone, time.Now()
	q.Verdict = client.Verdict{Text: "good for <b>400</b> clients", Fit: true, Findings: []client.Finding{{Level: client.Warn, Part: "disk", Text: "slow"}}}
	return q, nil
}

func newBench() *bench { return &bench{told: make(chan struct{}), end: make(chan struct{})} }

// A measurement goes on behind the answer, there is one at a time, and it can be
// stopped.
func TestHardware(t *testing.T) {
	parts := sample(time.Now())
	s := newServer(t, Config{}, parts)
	query(t, s, "POST", "/api/v1/hardware", "{}", 503)

	b := newBench()
	parts.Hardware = b
	s = newServer(t, Config{}, parts)
	if got := answer[client.Qualification](t, s, "GET", "/api/v1/hardware", ""); got.State != client.QualifyNone {
		t.Errorf("before: %+v", got)
	}
	query(t, s, "POST", "/api/v1/hardware", `{"wire":601}`, 422)
	query(t, s, "POST", "/api/v1/hardware", `{"quick":true}`, 200)
	<-b.told
	if got := answer[client.Qualification](t, s, "GET", "/api/v1/hardware", ""); got.State != client.QualifyRunning || got.Step != "disk" || !b.quick {
		t.Errorf("while it runs: %+v", got)
	}
	query(t, s, "POST", "/api/v1/hardware", "{}", 409)
	if got := answer[client.Qualification](t, s, "DELETE", "/api/v1/hardware", ""); got.State != client.QualifyStopped {
		t.Errorf("stopped: %+v", got)
	}

	b = newBench()
	parts.Hardware = b
	s = newServer(t, Config{}, parts)
	query(t, s, "POST", "/api/v1/hardware", "{}", 200)
	close(b.end)
	for {
		got := answer[client.Qualification](t, s, "GET", "/api/v1/hardware", "")
		if got.State == client.QualifyRunning {
			continue
		}
		if got.State != client.QualifyDone || !got.Verdict.Fit || len(got.Verdict.Findings) != 1 {
			t.Errorf("done: %+v", got)
		}
		break
	}
}

func TestHardwarePage(t *testing.T) {
	b := newBench()
	parts := sample(time.Now())
	parts.Hardware = b
	s := newServer(t, Config{}, parts)
	page := func(method, form string) (int, string) {
		w := request(s, method, "/hardware", form, "Authorization", bearer(t, s), "Content-Type", "application/x-www-form-urlencoded")
		return w.Code, w.Body.String()
	}
	holds := func(what string, wants ...string) {
		t.Helper()
		_, text := page("GET", "")
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is missing in\n%s", what, want, text)
			}
		}
		if strings.Contains(text, "<b>400") {
			t.Errorf("%s: foreign text is markup", what)
		}
	}
	holds("before", "not measured since", "half a minute")
	if code, text := page("POST", url.Values{"do": {"whole"}}.Encode()); code != 303 {
		t.Fatalf("start: %d %s", code, text)
	}
	<-b.told
	holds("while it runs", "Measuring: disk, 40 %", "Stop")
	if code, text := page("POST", "do=quick"); code != 409 || !strings.Contains(text, "measured already") {
		t.Errorf("a second one: %d %s", code, text)
	}
	close(b.end)
	<-s.hardware.done
	holds("done", "&lt;b&gt;400", "slow", "eth0")
	if w := request(s, "GET", "/hardware", ""); w.Code != 302 && w.Code != 303 {
		t.Errorf("without a login: %d", w.Code)
	}
	if w := request(s, "GET", "/", "", "Authorization", bearer(t, s)); !strings.Contains(w.Body.String(), `href="/hardware"`) {
		t.Error("the panel does not lead there")
	}
}

package hwtest

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/hwtest/actors"
)

// TestWhyWasThatSlow: an origin that takes its time, a client that asks why, and
// the box that says so, also after a restart.
func TestWhyWasThatSlow(t *testing.T) {
	tools(t, "curl")
	s := newScene(t)
	l, err := s.origin.Listen("tcp", s.origin.AddrPort(80))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: 30 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(1500 * time.Millisecond)
		}
		w.Header().Set("Cache-Control", "max-age=3600, stale-if-error=86400")
		fmt.Fprint(w, "hello")
	})}
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		done.Wait()
	})
	data := t.TempDir()
	box, err := actors.StartBox(t.Context(), s.box, bin, data, s.config)
	if err != nil {
		t.Fatal(err)
	}
	at := "http://" + s.origin.Addr().String()
	for _, path := range []string{"/quick", "/slow", "/slow"} {
		if _, err := actors.Curl(t.Context(), s.clients[0], box.URL(), at+path); err != nil {
			t.Fatal(err)
		}
	}
	explain := func(args ...string) string {
		t.Helper()
		out, err := box.Command(t.Context(), append([]string{"explain"}, args...)...)
		if err != nil {
			t.Fatalf("cistern explain %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	lacks := func(said string, want ...string) {
		t.Helper()
		for _, part := range want {
			if !strings.Contains(said, part) {
				t.Errorf("%q is missing in\n%s", part, said)
			}
		}
	}
	waitFor(t, "the journal", func() bool { return strings.Count(explain("--past"), "GET 200") >= 3 })
	lacks(explain(at+"/slow"),
		"fresh for 1h0m0s by max-age (RFC 9111 §4.2.1)", "served stale if the origin fails until ", "a request now would be answered from the store",
		"from     origin "+s.origin.Addr().String(), "past\n", "hit", "miss (uri-miss)", "for the origin to begin its answer")
	slow := explain("--slow", "--client", s.clients[0].Addr().String(), "--since", "1h")
	lacks(slow, at+"/slow", "for the origin to begin its answer", "nothing stored for this URL (RFC 9111 §4)")
	if strings.Contains(slow, "/quick") || strings.Count(slow, "GET") != 1 {
		t.Errorf("what was quick is listed as slow:\n%s", slow)
	}
	if err := box.Process.Stop(); err != nil {
		t.Logf("the box ended: %v", err)
	}
	if box, err = actors.StartBox(t.Context(), s.box, bin, data, s.config); err != nil {
		t.Fatal(err)
	}
	var past []client.Request
	if err := box.API(t.Context(), "/api/v1/requests?slow=true", &past); err != nil {
		t.Fatal(err)
	}
	if len(past) != 1 || past[0].URL != at+"/slow" || past[0].Answered < 1500 || past[0].Client != s.clients[0].Addr().String() {
		t.Errorf("after a restart: %+v", past)
	}
}

package origin

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestWaitingMakesNoAnswerOlder: what waited for its place was not yet sent.
func TestWaitingMakesNoAnswerOlder(t *testing.T) {
	hold := make(chan struct{})
	first := make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/first" {
			first <- struct{}{}
			<-hold
		}
	}))
	defer s.Close()
	d := &Dialer{Allow: []Destination{mustDestination(t, "127.0.0.0/8")}}
	m, err := NewMirrors(Config{Dial: d.DialContext, MaxConns: 1}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	open := func(path string) time.Time {
		req, err := http.NewRequest(http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Error(err)
			return time.Time{}
		}
		offer, err := m.Open(context.Background(), req)
		if err != nil {
			t.Error(err)
			return time.Time{}
		}
		offer.Body.Close()
		return offer.Requested
	}
	ended, done := make(chan time.Time, 1), make(chan time.Time, 1)
	go func() { ended <- open("/first") }()
	<-first
	go func() { done <- open("/second") }()
	for m.Stats().Waiting == 0 {
		time.Sleep(time.Millisecond)
	}
	released := time.Now()
	close(hold)
	<-ended
	if second := <-done; second.Before(released) {
		t.Errorf("the second was sent %v before there was a place for it", released.Sub(second))
	}
}

func mustDestination(t *testing.T, text string) Destination {
	t.Helper()
	d, err := ParseDestination(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// refresh is how often a live page is brought up to date.
const refresh = time.Second

// fragments are the parts of the panel that live, each the id of an element and
// the name of the template that fills it.
var fragments = [...]string{"saved", "objects", "casts", "swarms", "agents", "store"}

// panel is the whole page, as it is now.
func (s *Server) panel(w http.ResponseWriter, r *http.Request) {
	s.pages.write(w, http.StatusOK, "panel", s.view(s.proxyFor(r), time.Now()))
}

// events sends the fragments that have changed, once each second, as
// server-sent events (HTML Living Standard §9.2) for as long as the reader is
// there and logged in.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		w.Header().Set("Retry-After", "10")
		problem(w, http.StatusServiceUnavailable, fmt.Sprintf("%d live pages are open already", maxStreams))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	control := http.NewResponseController(w)
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	sent := map[string]string{}
	for {
		if err := control.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
			s.log.Debug("live page has no deadline", "err", err)
		}
		if err := s.sendChanges(w, s.view(s.proxyFor(r), time.Now()), sent); err != nil {
			return // the reader has gone, or has not read for too long
		}
		if err := control.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
		if !s.isMember(r) {
			return // logged out since; the page's next try is refused
		}
	}
}

// sendChanges writes an event for each fragment that is not what was sent
// before, and one more that says that the box is alive.
func (s *Server) sendChanges(w http.ResponseWriter, view panelView, sent map[string]string) error {
	for _, name := range fragments {
		html, err := s.pages.render("panel", name, view)
		if err != nil {
			return err
		}
		if sent[name] == string(html) {
			continue
		}
		sent[name] = string(html)
		data, err := json.Marshal(map[string]string{"id": name, "html": string(html)})
		if err != nil {
			return fmt.Errorf("encode fragment: %w", err)
		}
		if _, err := fmt.Fprintf(w, "event: fragment\ndata: %s\n\n", data); err != nil {
			return err
		}
	}
	_, err := fmt.Fprint(w, "event: alive\ndata: {}\n\n")
	return err
}

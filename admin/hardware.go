package admin

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/cistern-edge/cistern/admin/client"
)

type askQualify struct{ Body client.QualifyOrder }

// hardware is the qualification that somebody has asked for, if any.
type hardware struct {
	// mu guards what follows.
	mu     sync.Mutex
	state  client.Qualification
	cancel context.CancelFunc
	done   chan struct{} // closed at the end of the one that cancel ends; nil before the first
}

// now gives how far it is.
func (h *hardware) now() client.Qualification {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state.State == "" {
		h.state = client.Qualification{State: client.QualifyNone, NICs: []client.NIC{}, Verdict: client.Verdict{Findings: []client.Finding{}}}
	}
	return h.state
}

// told takes how far it is. What is inside a report is not changed once it was
// told of, but for the list of network cards.
func (h *hardware) told(q client.Qualification) {
	q.NICs = append([]client.NIC{}, q.NICs...)
	if q.Verdict.Findings == nil {
		q.Verdict.Findings = []client.Finding{}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state = q
}

// stop ends the one that runs and waits for it.
func (h *hardware) stop() client.Qualification {
	h.mu.Lock()
	cancel, done := h.cancel, h.done
	h.mu.Unlock()
	if done != nil {
		cancel()
		<-done
	}
	return h.now()
}

// qualify begins one; it goes on when whoever asked has left.
func (s *Server) qualify(order client.QualifyOrder) (client.Qualification, error) {
	h := &s.hardware
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case s.parts.Hardware == nil:
		return client.Qualification{}, huma.Error503ServiceUnavailable("this box does not measure its machine")
	case h.state.State == client.QualifyRunning:
		return client.Qualification{}, huma.Error409Conflict("the machine is being measured already, since " + h.state.Started.Format(time.RFC3339))
	case s.life.Err() != nil:
		return client.Qualification{}, huma.Error503ServiceUnavailable("the box is stopping")
	}
	h.state = client.Qualification{
		State: client.QualifyRunning, Started: time.Now(), Quick: order.Quick, NICs: []client.NIC{}, Verdict: client.Verdict{Findings: []client.Finding{}},
	}
	ctx, cancel := context.WithCancel(s.life)
	done := make(chan struct{})
	h.cancel, h.done = cancel, done
	go func() {
		defer close(done)
		defer cancel()
		report, err := s.parts.Hardware.Qualify(ctx, order, h.told)
		if err != nil && ctx.Err() == nil {
			report.Verdict.Text = err.Error()
			s.log.Error("failed to measure the machine", "err", err)
		}
		h.told(report)
		s.log.Info("machine was measured", "state", report.State, "verdict", report.Verdict.Text)
	}()
	return h.state, nil
}

// measuring registers what there is to ask of the machine.
func (s *Server) measuring(a huma.API) {
	offer(a, http.MethodGet, "/hardware", "get-hardware", "What the machine can do, as it was last measured", func(context.Context, *ask) (client.Qualification, error) {
		return s.hardware.now(), nil
	})
	offer(a, http.MethodPost, "/hardware", "qualify", "Measure the machine, in the background; clients feel it", func(_ context.Context, in *askQualify) (client.Qualification, error) {
		return s.qualify(in.Body)
	}, http.StatusConflict, http.StatusServiceUnavailable)
	offer(a, http.MethodDelete, "/hardware", "stop-qualify", "End the measurement that runs", func(context.Context, *ask) (client.Qualification, error) {
		return s.hardware.stop(), nil
	})
}

// hardwareView is what the page about the machine sees.
type hardwareView struct {
	client.Qualification
	Running bool
	Problem string
}

func (s *Server) hardwarePage(w http.ResponseWriter, _ *http.Request) {
	s.showHardware(w, http.StatusOK, "")
}

func (s *Server) showHardware(w http.ResponseWriter, status int, problem string) {
	now := s.hardware.now()
	s.pages.write(w, status, "hardware", hardwareView{now, now.State == client.QualifyRunning, problem})
}

// hardwareForm starts or stops a measurement for a person.
func (s *Server) hardwareForm(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	var err error
	switch r.PostFormValue("do") {
	case "quick":
		_, err = s.qualify(client.QualifyOrder{Quick: true})
	case "whole":
		_, err = s.qualify(client.QualifyOrder{})
	case "stop":
		s.hardware.stop()
	}
	if err != nil {
		s.showHardware(w, http.StatusConflict, err.Error())
		return
	}
	http.Redirect(w, r, "/hardware", http.StatusSeeOther)
}

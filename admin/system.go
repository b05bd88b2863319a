package admin

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/cistern-edge/cistern/admin/client"
)

// System is the appliance under the box.
type System interface {
	State(ctx context.Context) (client.System, error)
	// Update takes an update file; a refusal is an Update whose State says so.
	Update(ctx context.Context, file io.Reader) (client.Update, error)
	// Log gives the last lines that the system wrote.
	Log(ctx context.Context) ([]byte, error)
}

// updateTime bounds how long an update may take to come in and be written.
const updateTime = 30 * time.Minute

// errNoSystem is said by a box that is a program on somebody's machine.
func errNoSystem() error {
	return huma.Error503ServiceUnavailable("this box is no appliance: whoever keeps the machine updates it")
}

// system registers what there is to ask of the appliance. Update files and logs
// are no JSON, so their doors are plain ones.
func (s *Server) system(a huma.API, mux *http.ServeMux) {
	offer(a, http.MethodGet, "/system", "get-system", "The appliance under the box and its last update", func(ctx context.Context, _ *ask) (client.System, error) {
		if s.parts.System == nil {
			return client.System{}, errNoSystem()
		}
		return s.parts.System.State(ctx)
	}, http.StatusServiceUnavailable)
	mux.HandleFunc("POST /api/v1/system/update", s.update)
	mux.HandleFunc("GET /api/v1/system/log", func(w http.ResponseWriter, r *http.Request) {
		if s.parts.System == nil {
			problem(w, http.StatusServiceUnavailable, errNoSystem().Error())
			return
		}
		text, err := s.parts.System.Log(r.Context())
		if err != nil {
			problem(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(text) // who asked has gone
	})
}

// update passes an update file on as it comes.
func (s *Server) update(w http.ResponseWriter, r *http.Request) {
	if s.parts.System == nil {
		problem(w, http.StatusServiceUnavailable, errNoSystem().Error())
		return
	}
	control := http.NewResponseController(w)
	deadline := time.Now().Add(updateTime)
	if err := control.SetReadDeadline(deadline); err != nil {
		s.log.Debug("failed to give an update its time", "err", err)
	}
	if err := control.SetWriteDeadline(deadline); err != nil {
		s.log.Debug("failed to give an update its time", "err", err)
	}
	u, err := s.parts.System.Update(r.Context(), r.Body)
	switch {
	case err != nil:
		problem(w, http.StatusInternalServerError, err.Error())
	case u.State == "refused":
		problem(w, http.StatusUnprocessableEntity, "the update was refused: "+u.Reason)
	default:
		s.log.Info("update was taken", "version", u.Version, "client", clientAddr(r).String())
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(u) // who asked has gone
	}
}

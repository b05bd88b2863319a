package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/cistern-edge/cistern/admin/client"
)

// System is the appliance under the box.
type System interface {
	Release
	Machine
	Logins
}

// Logins say who may come in by SSH; an error says what is wrong with a key.
type Logins interface {
	AddSSHKey(ctx context.Context, line string) error
	RemoveSSHKey(ctx context.Context, fingerprint string) error
}

// Machine is what the appliance runs on.
type Machine interface {
	Disks(ctx context.Context) ([]client.Disk, error)
	// Order does what was checked to be one of the orders; a refusal is an Update
	// whose State says so.
	Order(ctx context.Context, o client.SystemOrder) (client.Update, error)
}

// Release is what the appliance runs, and its successor.
type Release interface {
	State(ctx context.Context) (client.System, error)
	// Update takes an update file; a refusal is an Update whose State says so.
	Update(ctx context.Context, file io.Reader) (client.Update, error)
	// Log gives the last lines that the system wrote.
	Log(ctx context.Context) ([]byte, error)
}

// updateTime bounds how long an update may take to come in and be written.
const updateTime = 30 * time.Minute

// mostDrained is how much of a refused update is still listened to, in bytes.
const mostDrained = 1 << 30

// noSystem is said by a box that is a program on somebody's machine.
const noSystem = "this box is no appliance: whoever keeps the machine updates it"

func errNoSystem() error { return huma.Error503ServiceUnavailable(noSystem) }

// system registers what there is to ask of the appliance.
func (s *Server) system(a huma.API, mux humago.Mux) {
	offer(a, http.MethodGet, "/system", "get-system", "The appliance under the box and its last update", func(ctx context.Context, _ *ask) (client.System, error) {
		if s.parts.System == nil {
			return client.System{}, errNoSystem()
		}
		return s.parts.System.State(ctx)
	}, http.StatusServiceUnavailable)
	offer(a, http.MethodGet, "/system/disks", "list-disks", "The disks of the appliance's machine, and what they hold", func(ctx context.Context, _ *ask) ([]client.Disk, error) {
		if s.parts.System == nil {
			return nil, errNoSystem()
		}
		return s.parts.System.Disks(ctx)
	}, http.StatusServiceUnavailable)
	offer(a, http.MethodPost, "/system/ssh-keys", "add-ssh-key", "Let a key in by SSH", func(ctx context.Context, in *askSSHLine) (client.SSH, error) {
		return s.logins(ctx, func(l Logins) error { return l.AddSSHKey(ctx, in.Body.Key) })
	}, http.StatusServiceUnavailable)
	offer(a, http.MethodDelete, "/system/ssh-keys", "remove-ssh-key", "Let a key in by SSH no longer", func(ctx context.Context, in *askSSHKey) (client.SSH, error) {
		return s.logins(ctx, func(l Logins) error { return l.RemoveSSHKey(ctx, in.Fingerprint) })
	}, http.StatusServiceUnavailable)
	s.systemDoors(a, mux)
}

type (
	askSSHLine struct{ Body client.SSHLine }
	askSSHKey  struct {
		Fingerprint string `query:"fingerprint" required:"true" maxLength:"100" doc:"SHA256:…, as get-system gives it"`
	}
)

// logins changes who may come in by SSH, and gives who may then.
func (s *Server) logins(ctx context.Context, change func(Logins) error) (client.SSH, error) {
	if s.parts.System == nil {
		return client.SSH{}, errNoSystem()
	}
	if err := change(s.parts.System); err != nil {
		return client.SSH{}, huma.Error422UnprocessableEntity(err.Error())
	}
	sys, err := s.parts.System.State(ctx)
	return sys.SSH, err
}

// update passes an update file on as it comes.
func (s *Server) update(w http.ResponseWriter, r *http.Request) {
	s.patiently(w, "update", func() (client.Update, error) { return s.takeUpdate(r.Context(), r.Body) })
}

// takeUpdate reads a file to its end even if it is refused at its beginning: else
// whoever sends it sees a broken connection in place of the reason.
func (s *Server) takeUpdate(ctx context.Context, file io.Reader) (client.Update, error) {
	u, err := s.parts.System.Update(ctx, file)
	if err != nil || u.State == "refused" {
		_, _ = io.Copy(io.Discard, io.LimitReader(file, mostDrained)) // who sends it has gone
	}
	return u, err
}

// order has the appliance do something. What erases is said so in the order, so
// that nobody does it by a slip.
func (s *Server) order(w http.ResponseWriter, r *http.Request) {
	var o client.SystemOrder
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		problem(w, http.StatusUnprocessableEntity, "this is no order: "+err.Error())
		return
	}
	switch o.Do {
	case client.Restart, client.PowerOff, client.CheckChannel, client.Schedule:
	case client.Reset, client.Install:
		if !o.Erase {
			problem(w, http.StatusUnprocessableEntity, "this erases data; the order has to say so: \"erase\": true")
			return
		}
	default:
		problem(w, http.StatusUnprocessableEntity, fmt.Sprintf("there is no order %q", o.Do))
		return
	}
	s.patiently(w, o.Do, func() (client.Update, error) { return s.parts.System.Order(r.Context(), o) })
}

// patiently has the appliance do what takes longer than a request may, and
// answers with what came of it.
func (s *Server) patiently(w http.ResponseWriter, what string, do func() (client.Update, error)) {
	if s.parts.System == nil {
		problem(w, http.StatusServiceUnavailable, noSystem)
		return
	}
	s.giveTime(w)
	u, err := do()
	switch {
	case err != nil:
		problem(w, http.StatusInternalServerError, err.Error())
	case u.State == "refused":
		problem(w, http.StatusUnprocessableEntity, "the "+what+" was refused: "+u.Reason)
	default:
		s.log.Info("system was commanded", "order", what, "version", u.Version)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(u) // who asked has gone
	}
}

// giveTime lets a request last as long as an update may.
func (s *Server) giveTime(w http.ResponseWriter) {
	control := http.NewResponseController(w)
	deadline := time.Now().Add(updateTime)
	if err := errors.Join(control.SetReadDeadline(deadline), control.SetWriteDeadline(deadline)); err != nil {
		s.log.Debug("failed to give an order its time", "err", err)
	}
}

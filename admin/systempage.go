package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// systemView is what the page about the appliance sees.
type systemView struct {
	Version   string // the daemon's
	Started   time.Time
	Appliance bool
	Sys       client.System
	Disks     []client.Disk
	Problem   string
	Done      string
	Restarts  bool // the box goes away for a while
	Log       []string
	Query     client.LogQuery
	Levels    []string
	Units     []string
	Download  string // address of the same lines, to keep
}

// Lines of the log that the page shows unless asked for more, and at most.
const (
	logShown = 200
	logMost  = 5000
)

// eraseWord is what somebody types who wants a factory reset.
const eraseWord = "erase"

// done says what came of an order, by what the address of the page says after
// it: nobody else's words get onto the page by a link.
func done(order string) (text string, restarts bool) {
	switch order {
	case "update":
		return "The update is proved and in the other slot. The box restarts into it; if it does not work, the present system comes back, and this page says why.", true
	case "current":
		return "The channel has nothing newer.", false
	case client.Restart:
		return "The box restarts.", true
	case client.PowerOff:
		return "The box turns itself off. It comes back when somebody presses its button.", false
	case client.Reset:
		return "The box erases what it has stored and been told, and restarts as on its first day. Its setup code then stands on its screen and in its log.", true
	case client.Install:
		return "The system is on the disk. Take the stick out, then restart the box.", false
	case client.Schedule, "ssh-add":
		return "Kept.", false
	case "ssh-remove":
		return "The key lets nobody in any more. Who is in stays until they leave.", false
	}
	return "", false
}

func (s *Server) systemPage(w http.ResponseWriter, r *http.Request) {
	s.showSystem(w, r, http.StatusOK, "")
}

// showSystem writes the page; problem is what was wrong with what was asked.
func (s *Server) showSystem(w http.ResponseWriter, r *http.Request, status int, problem string) {
	v := systemView{Version: s.cfg.Version, Started: s.started, Problem: problem, Appliance: s.parts.System != nil, Levels: levels[:], Units: []string{systemUnit, "cisternd", "ssh"}}
	if problem == "" {
		v.Done, v.Restarts = done(r.URL.Query().Get("done"))
	}
	if v.Appliance {
		if err := s.lookAtSystem(r, &v); err != nil && v.Problem == "" {
			v.Problem = err.Error()
		}
	}
	s.pages.write(w, status, "system", v)
}

// lookAtSystem gathers what the appliance says of itself: as much as it does.
func (s *Server) lookAtSystem(r *http.Request, v *systemView) error {
	q, qerr := readLogQuery(r.URL.Query())
	if q.Lines == 0 || q.Lines > logMost {
		q.Lines = logShown
	}
	v.Query, v.Download = q, "/api/v1/system/log?"+client.LogQuery{Level: q.Level, Unit: q.Unit}.Values().Encode()+"&download"
	var err, derr, lerr error
	if v.Sys, err = s.parts.System.State(r.Context()); err != nil {
		return fmt.Errorf("the appliance does not answer, so what it does is not known: %w", err)
	}
	v.Disks, derr = s.parts.System.Disks(r.Context())
	text, lerr := s.parts.System.Log(r.Context())
	v.Log = logLines(text, q)
	return errors.Join(qerr, derr, lerr)
}

// errForm is what is wrong with a form, in words for who has sent it.
type errForm string

func (e errForm) Error() string { return string(e) }

// systemForm does what a form of the page asks for.
func (s *Server) systemForm(w http.ResponseWriter, r *http.Request) {
	if s.parts.System == nil {
		s.showSystem(w, r, http.StatusServiceUnavailable, noSystem)
		return
	}
	s.giveTime(w)
	var u client.Update
	var order string
	var err error
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") {
		order = "update"
		u, err = s.uploaded(r)
	} else {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		order = r.PostFormValue("do")
		u, err = s.ordered(r.Context(), r)
	}
	var form errForm
	switch {
	case errors.As(err, &form):
		s.showSystem(w, r, http.StatusUnprocessableEntity, form.Error())
		return
	case err != nil:
		s.showSystem(w, r, http.StatusInternalServerError, "That failed: "+err.Error())
		return
	case u.State == "refused":
		s.showSystem(w, r, http.StatusUnprocessableEntity, "That was refused, and nothing was changed: "+u.Reason)
		return
	}
	s.log.Info("system was commanded", "order", order, "version", u.Version)
	switch u.State {
	case "current":
		order = u.State
	case "trial":
		order = "update"
	}
	http.Redirect(w, r, "/system?done="+order, http.StatusSeeOther)
}

// ordered reads an order and has it done. What erases needs a word typed.
func (s *Server) ordered(ctx context.Context, r *http.Request) (client.Update, error) {
	typed := strings.TrimSpace(r.PostFormValue("typed"))
	o := client.SystemOrder{Do: r.PostFormValue("do")}
	switch o.Do {
	case client.Restart, client.PowerOff, client.CheckChannel:
	case "ssh-add":
		return refusedIf(s.parts.System.AddSSHKey(ctx, r.PostFormValue("key")))
	case "ssh-remove":
		return refusedIf(s.parts.System.RemoveSSHKey(ctx, r.PostFormValue("fingerprint")))
	case client.Schedule:
		o.Channel, o.At = strings.TrimSpace(r.PostFormValue("channel")), r.PostFormValue("at")
	case client.Reset:
		if o.Erase = strings.EqualFold(typed, eraseWord); !o.Erase {
			return client.Update{}, errForm("Nothing was erased: type the word " + eraseWord + " to do it.")
		}
	case client.Install:
		o.Disk = r.PostFormValue("disk")
		if o.Erase = typed != "" && typed == o.Disk; !o.Erase {
			return client.Update{}, errForm("Nothing was erased: type the name of the disk, " + o.Disk + ", to do it.")
		}
	default:
		return client.Update{}, errForm("The page has no such button.")
	}
	return s.parts.System.Order(ctx, o)
}

// refusedIf makes a refusal of what is wrong with a key.
func refusedIf(err error) (client.Update, error) {
	if err != nil {
		return client.Update{State: "refused", Reason: err.Error()}, nil
	}
	return client.Update{State: "done"}, nil
}

// uploaded takes the update file out of a form as it comes.
func (s *Server) uploaded(r *http.Request) (client.Update, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return client.Update{}, errForm("The form could not be read: " + err.Error())
	}
	for {
		part, err := parts.NextPart()
		switch {
		case errors.Is(err, io.EOF):
			return client.Update{}, errForm("No file came with the form: choose the .update file first.")
		case err != nil:
			return client.Update{}, errForm("The file did not come whole, and nothing was changed: " + err.Error())
		case part.FormName() == "file" && part.FileName() != "":
			u, err := s.takeUpdate(r.Context(), part)
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = errForm("The file did not come whole, and nothing was changed: send it again.")
			}
			return u, err
		}
	}
}

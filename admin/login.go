package admin

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// maxForm bounds a login form, in bytes.
const maxForm = 16 << 10

// doorPage is what the login and setup pages show.
type doorPage struct {
	Problem  string
	CodeFile string
}

func (s *Server) loginPage(w http.ResponseWriter, r *http.Request) {
	switch {
	case !s.account.ready():
		http.Redirect(w, r, "/setup", http.StatusSeeOther)
	case s.hasSession(r):
		http.Redirect(w, r, "/", http.StatusSeeOther)
	default:
		s.pages.write(w, http.StatusOK, "login", doorPage{})
	}
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	if !s.mayGuess(w, r, "login") {
		return
	}
	match, err := s.account.isPassword(r.PostFormValue("password"))
	if err != nil {
		s.log.Error("failed to check the password", "err", err)
		s.pages.write(w, http.StatusInternalServerError, "login", doorPage{Problem: "The stored password cannot be read; see the daemon's log."})
		return
	}
	if !match {
		s.log.Warn("refused a login", "client", clientAddr(r))
		s.pages.write(w, http.StatusUnauthorized, "login", doorPage{Problem: "That is not the password."})
		return
	}
	s.welcome(w, r)
}

func (s *Server) setupPage(w http.ResponseWriter, r *http.Request) {
	if s.account.ready() {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	s.pages.write(w, http.StatusOK, "setup", doorPage{CodeFile: codeFile})
}

func (s *Server) setup(w http.ResponseWriter, r *http.Request) {
	if !s.mayGuess(w, r, "setup") {
		return
	}
	refused := func(status int, why string) {
		s.pages.write(w, status, "setup", doorPage{Problem: why, CodeFile: codeFile})
	}
	if r.PostFormValue("password") != r.PostFormValue("again") {
		refused(http.StatusUnprocessableEntity, "The two passwords differ.")
		return
	}
	err := s.account.setPassword(r.PostFormValue("code"), r.PostFormValue("password"))
	switch {
	case err == nil:
		s.log.Info("set the panel's password", "client", clientAddr(r))
		s.welcome(w, r)
	case errors.Is(err, errPasswordSet):
		http.Redirect(w, r, "/login", http.StatusSeeOther)
	case errors.Is(err, errWrongCode):
		s.log.Warn("refused a setup code", "client", clientAddr(r))
		refused(http.StatusUnauthorized, "That is not the setup code.")
	case errors.Is(err, errPassword):
		refused(http.StatusUnprocessableEntity, "A password has at least "+strconv.Itoa(minPassword)+" characters.")
	default:
		s.log.Error("failed to set the password", "err", err)
		refused(http.StatusInternalServerError, "The password could not be kept; see the daemon's log.")
	}
}

// mayGuess bounds a form, and how often it may be sent.
func (s *Server) mayGuess(w http.ResponseWriter, r *http.Request, page string) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		s.pages.write(w, http.StatusBadRequest, page, doorPage{Problem: "The form could not be read.", CodeFile: codeFile})
		return false
	}
	wait, ok := s.throttle.allow(clientAddr(r), time.Now())
	if !ok {
		seconds := strconv.Itoa(int(wait.Seconds()))
		w.Header().Set("Retry-After", seconds)
		s.pages.write(w, http.StatusTooManyRequests, page, doorPage{
			Problem: "Too many tries. Wait " + seconds + " seconds.", CodeFile: codeFile,
		})
	}
	return ok
}

// welcome gives a browser its session.
func (s *Server) welcome(w http.ResponseWriter, r *http.Request) {
	s.throttle.forgive(clientAddr(r))
	s.sessions.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A new token, so that nobody can plant one before the login.
		if err := s.sessions.RenewToken(r.Context()); err != nil {
			s.log.Error("failed to start a session", "err", err)
			http.Error(w, "the session could not be kept", http.StatusInternalServerError)
			return
		}
		s.sessions.Put(r.Context(), loggedIn, true)
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})).ServeHTTP(w, r)
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	s.sessions.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.sessions.Destroy(r.Context()); err != nil {
			s.log.Error("failed to end a session", "err", err)
		}
		http.Redirect(w, r, "/login", http.StatusSeeOther)
	})).ServeHTTP(w, r)
}

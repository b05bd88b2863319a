package admin

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/cistern-edge/cistern/admin/client"
)

// policy is the Content-Security-Policy of every answer: nothing inline,
// nothing from elsewhere, no frames.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// routes puts the doors in their frames: every request passes the Host check
// and the check for forged ones, and all but the first few need a login.
func (s *Server) routes() (http.Handler, error) {
	api, described, err := s.api()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /assets/", assets())
	mux.HandleFunc("GET /login", s.loginPage)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("GET /setup", s.setupPage)
	mux.HandleFunc("POST /setup", s.setup)
	mux.HandleFunc("GET /api/v1/openapi.json", described.spec)
	mux.HandleFunc("GET /api/v1/docs", described.page)
	mux.Handle("/api/", s.members(api, refuse))
	mux.Handle("GET /{$}", s.members(http.HandlerFunc(s.panel), s.toLogin))
	mux.Handle("GET /explain", s.members(http.HandlerFunc(s.explainPage), s.toLogin))
	mux.Handle("GET /hardware", s.members(http.HandlerFunc(s.hardwarePage), s.toLogin))
	mux.Handle("POST /hardware", s.members(http.HandlerFunc(s.hardwareForm), s.toLogin))
	mux.Handle("GET /system", s.members(http.HandlerFunc(s.systemPage), s.toLogin))
	mux.Handle("POST /system", s.members(http.HandlerFunc(s.systemForm), s.toLogin))
	mux.Handle("GET /events", s.members(http.HandlerFunc(s.events), refuse))
	mux.Handle("POST /logout", s.members(http.HandlerFunc(s.logout), s.toLogin))
	metrics := s.metrics()
	if !s.cfg.MetricsOpen {
		metrics = s.members(metrics, refuse)
	}
	mux.Handle("GET /metrics", metrics)

	forged := http.NewCrossOriginProtection()
	forged.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		problem(w, http.StatusForbidden, "another web site sent this request; it changed nothing")
	}))
	return s.ownNames(forged.Handler(mux)), nil
}

// ownNames answers requests for the panel's own names only. A web site that
// points its name at this address (DNS rebinding) gets 421 (RFC 9110 §15.5.20).
func (s *Server) ownNames(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		// Not no-referrer: that makes browsers send "Origin: null" with the login
		// form, and on plain http there is nothing else to tell it from a forged one.
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !s.own(r.Host) {
			problem(w, http.StatusMisdirectedRequest, "this box does not go by that name; use its address, or add the name to admin.names")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) own(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), "."))
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
		return true
	}
	return slices.ContainsFunc(s.cfg.Names, func(name string) bool { return strings.EqualFold(name, host) })
}

// members lets those in who carry the token or a session.
func (s *Server) members(next http.Handler, refused http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.isMember(r) {
			refused(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) isMember(r *http.Request) bool {
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return s.account.isToken(strings.TrimSpace(token))
	}
	return s.hasSession(r)
}

// whoIs names a member: who logged in is the one account, who has the token
// uses the command line or a program of their own.
func (s *Server) whoIs(r *http.Request) string {
	if scheme, _, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return "cli"
	}
	return "admin"
}

func (s *Server) hasSession(r *http.Request) bool {
	cookie, err := r.Cookie(s.sessions.Cookie.Name)
	if err != nil {
		return false
	}
	ctx, err := s.sessions.Load(r.Context(), cookie.Value)
	return err == nil && s.sessions.GetBool(ctx, loggedIn)
}

// refuse says to a program that it has to prove who it is.
func refuse(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="cistern"`)
	problem(w, http.StatusUnauthorized, "send the admin token (file "+client.TokenFile+" in the data directory) as Authorization: Bearer, or log in")
}

// toLogin leads a person to the login, or to the setup before there is one.
func (s *Server) toLogin(w http.ResponseWriter, r *http.Request) {
	if !s.account.ready() {
		http.Redirect(w, r, "/setup", http.StatusSeeOther)
		return
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// problem writes an error as RFC 9457 has it.
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	// A client that has gone is the only way for this to fail.
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": detail})
}

// clientAddr is who sent a request, as the connection says it.
func clientAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}

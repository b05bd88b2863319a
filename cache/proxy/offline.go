package proxy

import (
	"errors"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/cache/origin"
)

// offlineRetry is when to ask again for what is not here while the uplink is down.
const offlineRetry = 10 * time.Second

// offline finds what says that the uplink is down in an error; nil if nothing does.
func offline(err error) *origin.OfflineError {
	var down *origin.OfflineError
	errors.As(err, &down)
	return down
}

// offline says why nothing outside can be reached now, nil if it can.
func (s *Server) offline() *origin.OfflineError {
	if s.cfg.Offline == nil {
		return nil
	}
	return s.cfg.Offline()
}

// withoutUplink adds to why an answer is stale that the uplink is down, if that
// is what err says.
func withoutUplink(why string, err error) string {
	if down := offline(err); down != nil {
		return why + ": " + down.Error()
	}
	return why
}

// sayOffline answers for what is not here while the uplink is down: a page to who
// reads pages, else a sentence.
func (s *Server) sayOffline(w http.ResponseWriter, r *http.Request, f *fault) {
	const todo = "What is here is still served. The box tries again by itself: come back in a moment."
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		s.say(w, r, f.status, "text/plain; charset=utf-8", f.why+".\n"+todo+"\n")
		return
	}
	var b strings.Builder
	err := offlinePage.Execute(&b, map[string]any{
		"URL": r.URL.Redacted(), "Since": f.offline.Since.Format("15:04 on 2 January"), "Why": f.why, "Todo": todo, "Wait": int(offlineRetry / time.Second),
	})
	if err != nil {
		s.say(w, r, f.status, "text/plain; charset=utf-8", f.why+"\n")
		return
	}
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	s.say(w, r, f.status, "text/html; charset=utf-8", b.String())
}

var offlinePage = template.Must(template.New("offline").Parse(`<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="{{.Wait}}">
<title>Not here, and the uplink is down</title>
<style>body{font:1rem/1.5 sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}code{overflow-wrap:anywhere}</style>
<h1>The uplink is down</h1>
<p>Since {{.Since}} the outside cannot be reached, and <code>{{.URL}}</code> is not kept here.</p>
<p>{{.Todo}} This page reloads every {{.Wait}} seconds.</p>
<ul>
<li>If it stays so: look at the router and the line; <code>cistern status</code> and the panel of the box say what it sees.</li>
<li>Addresses on the local network are not affected.</li>
</ul>
<p><small>{{.Why}}</small></p>
</html>
`))

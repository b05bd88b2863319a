package proxy

import (
	"crypto/rand"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"github.com/cistern-edge/cistern/cache/httpcache"
)

// boundary is a delimiter for multipart bodies that no body holds.
func boundary() string { return rand.Text() }

// pacFile is the proxy auto-configuration: plain http through the box, with the
// direct way left if it is gone; the box refuses private addresses, so what is
// near by goes there directly.
const pacFile = `function FindProxyForURL(url, host) {
  if (url.substring(0, 5) != "http:" || isPlainHostName(host) ||
      /^(127|10|192\.168|169\.254|172\.(1[6-9]|2[0-9]|3[01]))\.[0-9.]+$/.test(host) || host.charAt(0) == "[")
    return "DIRECT";
  return "PROXY %s; DIRECT";
}
`

// pac answers /wpad.dat.
func (s *Server) pac(w http.ResponseWriter, r *http.Request) {
	s.own(w, r, "application/x-ns-proxy-autoconfig", fmt.Sprintf(pacFile, s.address(r)))
}

// page answers / for people.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	var b strings.Builder
	if err := home.Execute(&b, s.address(r)); err != nil {
		s.fail(w, r, fmt.Errorf("write the page: %w", err))
		return
	}
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	s.own(w, r, "text/html; charset=utf-8", b.String())
}

// own answers with something of the box's own.
func (s *Server) own(w http.ResponseWriter, r *http.Request, mediaType, text string) {
	h := w.Header()
	httpcache.CacheStatus{Detail: "made here"}.AppendTo(h)
	h.Set("Content-Type", mediaType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "max-age=60")
	h.Set("Content-Length", fmt.Sprint(len(text)))
	if r.Method == http.MethodGet {
		_, _ = w.Write([]byte(text)) // a client that has left needs no error
	}
}

var home = template.Must(template.New("home").Parse(`<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Cistern</title>
<style>body{font:1rem/1.5 sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem}code{background:#eee;padding:.1em .3em}</style>
<h1>Cistern</h1>
<p>This is a cache for the local network. What one machine here has fetched, the others get from this box.</p>
<ul>
<li>As an HTTP proxy: <code>http_proxy=http://{{.}}</code></li>
<li>For apt: <code>Acquire::http::Proxy "http://{{.}}";</code></li>
<li>Proxy auto-configuration: <code>http://{{.}}/wpad.dat</code></li>
<li>Without a proxy: <code>http://{{.}}/get/https/example.org/file.iso</code></li>
<li>A file's torrent, once the file is here: the same address with <code>?torrent</code></li>
<li>Its metalink, by which aria2 and wget2 check and repair what they fetch: the same address with <code>.meta4</code> behind it</li>
</ul>
</html>
`))

package proxy

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// local answers requests for the box's own addresses.
func (s *Server) local(w http.ResponseWriter, r *http.Request) {
	raw := r.URL.EscapedPath()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		s.fail(w, r, &fault{status: http.StatusMethodNotAllowed, why: "method " + quote(r.Method) + " is not for the box's own addresses, only GET and HEAD are"})
		return
	}
	switch {
	case (strings.HasPrefix(raw, "/get/") || strings.HasPrefix(raw, "/o/")) && !s.isMine(r):
		s.fail(w, r, &fault{status: http.StatusMisdirectedRequest, why: "this box is not called " + quote(r.Host) + "; use its address, or name it in proxy.names"})
	case strings.HasPrefix(raw, "/get/"):
		s.explicit(w, r)
	case strings.HasPrefix(raw, "/o/"):
		s.object(w, r)
	case raw == "/wpad.dat":
		s.pac(w, r)
	case raw == "/":
		s.page(w, r)
	default:
		s.fail(w, r, &fault{status: http.StatusNotFound, why: "no such address: " + quote(raw) + "; known are /get/<scheme>/<host>/<path>, /o/<id> and /wpad.dat"})
	}
}

// explicit answers /get/<scheme>/<host>/<path>[?query], its ?torrent and its
// metalink.
func (s *Server) explicit(w http.ResponseWriter, r *http.Request) {
	query, form := cutForm(r.URL.RawQuery)
	target, err := parseGet(r.URL.EscapedPath(), query)
	if err != nil {
		s.fail(w, r, &fault{status: http.StatusBadRequest, why: err.Error()})
		return
	}
	target.ForceQuery = r.URL.ForceQuery
	out := r.Clone(r.Context())
	out.URL, out.Host = target, target.Host
	// What a browser has for the box is not for the origin.
	for _, name := range []string{"Cookie", "Authorization", "Proxy-Authorization", "Referer", "Origin"} {
		out.Header.Del(name)
	}
	switch {
	case form == formTorrent:
		s.torrentOf(w, out)
	case form == formMetalink:
		s.metalinkOf(w, out)
	case s.suffixed(out):
		out.URL.Path, out.URL.RawPath = cutMeta4(out.URL.Path), cutMeta4(out.URL.RawPath)
		s.metalinkOf(w, out)
	case s.negotiate(w, out):
	default:
		s.get(w, out, func(h http.Header, info cache.Info) {
			s.sandbox(h, info, path.Base(target.Path))
			s.describe(r, h, info, path.Base(target.Path))
			relocate(h, target)
		})
	}
}

// The forms of an object beside its bytes.
const (
	formTorrent  = "torrent"
	formMetalink = "meta4"
)

// cutForm takes a last parameter that names a form, without a value, off a query.
func cutForm(query string) (rest, form string) {
	for _, form := range []string{formTorrent, formMetalink} {
		if query == form {
			return "", form
		}
		if rest, ok := strings.CutSuffix(query, "&"+form); ok {
			return rest, form
		}
	}
	return query, ""
}

// parseGet reads the escaped path of /get/<scheme>/<host>/<path> and gives the
// address that it stands for. Path and query go to the origin as they are.
func parseGet(escaped, query string) (*url.URL, error) {
	rest, ok := strings.CutPrefix(escaped, "/get/")
	if !ok {
		return nil, errors.New("path does not begin with /get/")
	}
	scheme, rest, _ := strings.Cut(rest, "/")
	if scheme != "http" && scheme != "https" {
		return nil, fmt.Errorf("/get/: scheme %s is neither http nor https", quote(scheme))
	}
	rawHost, rest, _ := strings.Cut(rest, "/")
	host, err := url.PathUnescape(rawHost)
	if err != nil {
		return nil, fmt.Errorf("/get/: host %s: %w", quote(rawHost), err)
	}
	if host == "" {
		return nil, errors.New("/get/: the host is missing")
	}
	if i := strings.IndexFunc(host, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(`/\?#@%"<>^{}|`+"`", c) }); i >= 0 {
		return nil, fmt.Errorf("/get/: host %s has a character that no host has", quote(host))
	}
	text := scheme + "://" + host + "/" + rest
	if query != "" {
		text += "?" + query
	}
	u, err := url.Parse(text)
	if err != nil {
		var bad *url.Error
		if errors.As(err, &bad) {
			err = bad.Err
		}
		return nil, fmt.Errorf("/get/: %w", err)
	}
	if _, err := httpcache.Key(u); err != nil {
		return nil, fmt.Errorf("/get/: %w", err)
	}
	return u, nil
}

// relocate makes the addresses in a redirect lead through the box again: a
// relative one would lead to the box itself.
func relocate(h http.Header, base *url.URL) {
	for _, name := range []string{"Location", "Content-Location"} {
		value := h.Get(name)
		if value == "" {
			continue
		}
		u, err := base.Parse(value)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			h.Del(name)
			continue
		}
		to := "/get/" + u.Scheme + "/" + url.PathEscape(u.Host) + "/" + strings.TrimPrefix(u.EscapedPath(), "/")
		if u.RawQuery != "" {
			to += "?" + u.RawQuery
		}
		if u.Fragment != "" {
			to += "#" + u.EscapedFragment()
		}
		h.Set(name, to)
	}
}

// risky are parts of media types that a browser would run or render as a page.
var risky = []string{"html", "svg", "xml", "script"}

// sandbox makes foreign content harmless to the box's own web origin, and names
// its torrent.
func (s *Server) sandbox(h http.Header, info cache.Info, name string) {
	for _, field := range []string{"Set-Cookie", "Set-Cookie2", "Clear-Site-Data", "Strict-Transport-Security", "Alt-Svc", "Service-Worker-Allowed", "Refresh"} {
		h.Del(field)
	}
	h.Set("Content-Security-Policy", "sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	mediaType := strings.ToLower(h.Get("Content-Type"))
	if mediaType == "" {
		h.Set("Content-Type", "application/octet-stream")
	}
	for _, part := range risky {
		if strings.Contains(mediaType, part) {
			h.Set("Content-Disposition", "attachment")
		}
	}
	if info.Complete && info.Public && info.Size > 0 && s.torrents != nil {
		h.Add("Link", "</o/"+info.ID.String()+"?torrent&name="+url.QueryEscape(safeName(name, info))+
			`>; rel=describedby; type="application/x-bittorrent"`)
	}
}

// safeName is a file name for an object.
func safeName(name string, info cache.Info) string {
	if name == "" || name == "." || name == ".." || name == "/" || len(name) > 255 || strings.ContainsAny(name, "/\\\x00") {
		return info.ID.String()
	}
	return name
}

// object answers /o/<id> and /o/btih:<infohash>/<path>, their ?torrent and their
// metalinks.
func (s *Server) object(w http.ResponseWriter, r *http.Request) {
	id, name, meta4, err := s.parseObjectForm(r.URL.EscapedPath())
	if err != nil {
		s.fail(w, r, &fault{status: http.StatusBadRequest, why: err.Error()})
		return
	}
	f, err := s.objectBy(id, name)
	if s.cfg.OpenObject != nil && !errors.Is(err, cache.ErrDenied) && (err != nil || !f.usable()) {
		f, err = s.bring(r.Context(), id, name)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		s.fail(w, r, &fault{status: http.StatusBadRequest, why: "query: " + err.Error()})
		return
	}
	title := params.Get("name")
	if title == "" && name != "" {
		title = path.Base(name)
	}
	switch {
	case params.Has(formTorrent):
		s.torrent(w, r, f.info, title)
		return
	case meta4 || params.Has(formMetalink):
		s.metalink(w, r, f.info, title, "")
		return
	}
	a := &answer{found: f, status: httpcache.CacheStatus{Hit: true}}
	account(r, &query{why: "it is named by its bytes, which do not change"}, a)
	if f.info.Trust == content.TrustTransport {
		a.status.Detail = "unvouched"
	}
	err = s.sendFound(w, r, a, func(h http.Header, info cache.Info) {
		h.Del("Age")
		s.sandbox(h, info, title)
		s.describe(r, h, info, title)
	})
	if err != nil {
		s.fail(w, r, &fault{status: http.StatusServiceUnavailable, why: "the object is not whole and nothing brings the rest: " + err.Error(), retry: 5 * time.Second})
	}
}

// objectBy finds an object by identity, or else by the name of a torrent's file.
func (s *Server) objectBy(id content.ID, name string) (*found, error) {
	if err := s.store.Denied(cmp.Or(name, id.String())); err != nil {
		return nil, err
	}
	info, ok := s.store.ByID(id)
	tag := id.String()
	if name != "" {
		tag = hex.EncodeToString([]byte(name))
	}
	if !ok {
		info, _, ok = s.store.Lookup(objectName(id, name))
	}
	if !ok || !info.Public {
		return nil, &fault{status: http.StatusNotFound, why: "no such object here"}
	}
	return &found{name: name, info: info, head: &httpcache.Response{
		Status: http.StatusOK, Requested: info.Created, Received: info.Created,
		Header: http.Header{
			"Etag": {`"` + tag + `"`}, "Content-Type": {"application/octet-stream"},
			"Cache-Control": {"public, max-age=31536000, immutable"},
		},
	}}, nil
}

// parseObject reads the escaped path of an object: an identity, or the store's
// name of a torrent's file.
func parseObject(escaped string) (id content.ID, name string, err error) {
	rest, ok := strings.CutPrefix(escaped, "/o/")
	if !ok {
		return id, "", errors.New("path does not begin with /o/")
	}
	text, err := url.PathUnescape(rest)
	if err != nil {
		return id, "", fmt.Errorf("/o/: %w", err)
	}
	hash, file, ok := strings.Cut(text, "/")
	hash, torrent := strings.CutPrefix(hash, "btih:")
	if !torrent {
		if id, err = content.ParseID(text); err != nil {
			err = fmt.Errorf("/o/: %w", err)
		}
		return id, "", err
	}
	hash = strings.ToLower(hash)
	if raw, err := hex.DecodeString(hash); err != nil || len(raw) != 20 && len(raw) != 32 {
		return id, "", fmt.Errorf("/o/: infohash %s has neither 40 nor 64 hexadecimal digits", quote(hash))
	}
	if !ok || file == "" {
		return id, "", errors.New("/o/: the path of the file within the torrent is missing")
	}
	return id, "btih:" + hash + "/" + file, nil
}

// torrentOf answers ?torrent for an address.
func (s *Server) torrentOf(w http.ResponseWriter, r *http.Request) {
	q, err := s.query(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	f := s.lookup(q)
	if f == nil || f.other {
		s.fail(w, r, &fault{status: http.StatusNotFound, why: "the file is not here: fetch it first, then its torrent"})
		return
	}
	if !f.info.Complete {
		f.info = s.completed(r, f.info)
	}
	s.torrent(w, r, f.info, path.Base(r.URL.Path))
}

// completed has all of an object fetched of which a part is here, and says how far
// that is. If it cannot be had, the next who asks tries again.
func (s *Server) completed(r *http.Request, info cache.Info) cache.Info {
	wanted, err := s.Want(r.Context(), r)
	if err != nil || !wanted.Shared {
		s.log.Info("torrent waits for a fill that did not start", "title", info.Title, "why", wanted.Why, "err", err)
		return info
	}
	return wanted.Info
}

// torrent answers with an object's torrent.
func (s *Server) torrent(w http.ResponseWriter, r *http.Request, info cache.Info, name string) {
	switch {
	case s.torrents == nil || !info.Public || info.Size == 0:
		s.fail(w, r, &fault{status: http.StatusNotFound, why: "this object is not given as a torrent"})
		return
	case !info.Complete:
		s.notYet(w, r, float64(info.Readable)/float64(max(info.Size, info.Readable, 1)), "fetched")
		return
	}
	name = safeName(name, info)
	file, progress, err := s.torrents.Torrent(r.Context(), info.Num, name)
	if err != nil {
		s.fail(w, r, fmt.Errorf("make the torrent: %w", err))
		return
	}
	if file == nil {
		s.notYet(w, r, progress, "hashed")
		return
	}
	h := w.Header()
	status := httpcache.CacheStatus{Hit: true}
	if info.Trust == content.TrustTransport {
		status.Detail = "unvouched"
	}
	status.AppendTo(h)
	h.Set("Content-Type", "application/x-bittorrent")
	h.Set("Content-Disposition", `attachment; filename*=UTF-8''`+url.PathEscape(name+".torrent"))
	h.Set("Content-Security-Policy", "sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", fmt.Sprint(len(file)))
	if r.Method == http.MethodGet {
		n, _ := w.Write(file) // a client that has left needs no error
		s.served(r, nil, int64(n))
	}
}

// notYet asks to come again.
func (s *Server) notYet(w http.ResponseWriter, r *http.Request, progress float64, what string) {
	s.fail(w, r, &fault{
		status: http.StatusServiceUnavailable, retry: 2 * time.Second,
		why: fmt.Sprintf("the file is still being %s: %.0f %% are done", what, 100*progress),
	})
}

// quote writes foreign text for an error message, short.
func quote(text string) string {
	if len(text) > 80 {
		text = text[:80] + "…"
	}
	return fmt.Sprintf("%q", text)
}

// address is where clients reach this listener: never what a Host header says.
func (s *Server) address(r *http.Request) string {
	if s.cfg.Address != "" {
		return s.cfg.Address
	}
	if a := localAddr(r); a != "" {
		return a
	}
	return net.JoinHostPort("127.0.0.1", "3142")
}

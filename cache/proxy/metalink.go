package proxy

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/digest"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// metalinkType is the media type of RFC 5854.
const metalinkType = "application/metalink4+xml"

// sumsPatience is how long a request for a metalink waits for digests that are
// being computed before it is asked to come again.
const sumsPatience = 2 * time.Second

// metalink is a Metalink document of one file (RFC 5854 §4).
type metalink struct {
	XMLName   xml.Name  `xml:"urn:ietf:params:xml:ns:metalink metalink"`
	Generator string    `xml:"generator"`
	Published time.Time `xml:"published"`
	File      metafile  `xml:"file"`
}

type metafile struct {
	Name   string      `xml:"name,attr"`
	Size   int64       `xml:"size"`
	Hash   metahash    `xml:"hash"`
	Pieces *metapieces `xml:"pieces"`
	URLs   []metaurl   `xml:"url"`
}

type metahash struct {
	Type string `xml:"type,attr"`
	Hex  string `xml:",chardata"`
}

type metapieces struct {
	Length int64    `xml:"length,attr"`
	Type   string   `xml:"type,attr"`
	Hashes []string `xml:"hash"`
}

type metaurl struct {
	Priority int    `xml:"priority,attr"`
	URL      string `xml:",chardata"`
}

// maxMirrors is how many addresses beside the box's own a metalink names.
const maxMirrors = 8

// metalinkOf answers ?meta4 for an address. What is not here is fetched, and
// what is stale is asked for again, as for any request.
func (s *Server) metalinkOf(w http.ResponseWriter, r *http.Request) {
	get := r.Clone(r.Context())
	get.Method = http.MethodGet
	httpcache.StripConditional(get.Header)
	q, err := s.query(get)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	a, err := s.resolve(r.Context(), q)
	account(r, q, a)
	switch {
	case err != nil:
		s.refuse(w, r, err)
		return
	case a.offer != nil:
		closeBody(a.offer)
		s.fail(w, r, &fault{status: http.StatusNotFound, why: "no metalink is made of what is not kept: " + a.status.Detail, fwd: a.status.Fwd})
		return
	}
	info, ok := s.store.Get(a.found.num())
	if !ok || a.found.head.Status != http.StatusOK || encoded(a.found.head.Header) {
		s.fail(w, r, &fault{status: http.StatusNotFound, why: "there is no file at this address to make a metalink of, or only an encoded one"})
		return
	}
	s.store.Keep(info.Num) // a metalink is of the whole
	s.metalink(w, r, info, path.Base(r.URL.Path), q.key)
}

// metalink answers with the metalink of an object. asked is the URL that it was
// asked for by: then the metalink names that and others as mirrors. Without, it
// names the box alone.
func (s *Server) metalink(w http.ResponseWriter, r *http.Request, info cache.Info, name, asked string) {
	switch {
	case !info.Public:
		s.fail(w, r, &fault{status: http.StatusNotFound, why: "this object is not given under another name"})
		return
	case !info.Complete:
		s.notYet(w, r, float64(info.Readable)/float64(max(info.Size, info.Readable, 1)), "fetched")
		return
	}
	sums, err := s.sums(r.Context(), info, sumsPatience)
	var busy *digest.BusyError
	switch {
	case errors.As(err, &busy):
		s.notYet(w, r, float64(busy.Done)/float64(max(busy.Total, 1)), "hashed")
	case err != nil:
		s.fail(w, r, fmt.Errorf("make the metalink: %w", err))
	default:
		s.sendMetalink(w, r, info, safeName(name, info), asked, sums)
	}
}

// sendMetalink writes a metalink.
func (s *Server) sendMetalink(w http.ResponseWriter, r *http.Request, info cache.Info, name, asked string, sums *digest.Sums) {
	doc := metalink{Generator: "Cistern", Published: info.Created.UTC().Truncate(time.Second), File: metafile{
		Name: name, Size: info.Size, Hash: metahash{"sha-256", sums.Whole.String()},
		URLs: []metaurl{{1, s.objectURL(r, info, name)}},
	}}
	if len(sums.Pieces) > 0 {
		doc.File.Pieces = &metapieces{Length: sums.PieceLength, Type: "sha-256"}
		for _, h := range sums.Pieces {
			doc.File.Pieces.Hashes = append(doc.File.Pieces.Hashes, h.String())
		}
	}
	for i, u := range mirrors(info, asked) {
		doc.File.URLs = append(doc.File.URLs, metaurl{100 + i, u})
	}
	text, err := xml.MarshalIndent(doc, "", " ")
	if err != nil {
		s.fail(w, r, fmt.Errorf("write the metalink: %w", err))
		return
	}
	text = append([]byte(xml.Header), text...)
	h := w.Header()
	httpcache.CacheStatus{Hit: true, Detail: "made here"}.AppendTo(h)
	h.Set("Content-Type", metalinkType)
	h.Set("Content-Disposition", `attachment; filename*=UTF-8''`+url.PathEscape(name+".meta4"))
	h.Set("Content-Security-Policy", "sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "max-age=60")
	h.Set("Vary", "Accept")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	if r.Method == http.MethodGet {
		n, _ := w.Write(text) // a client that has left needs no error
		s.served(r, nil, int64(n))
	}
}

// mirrors are the addresses outside that a public object came by, that under
// which it was asked for first. A query may be somebody's own secret: only
// whoever asked with it sees it. Clients fetch from all mirrors at once, whatever
// their priority, past the box: so only those hear of them who ask for a metalink
// by the address outside, not all that could not help being given one.
func mirrors(info cache.Info, asked string) (list []string) {
	if asked == "" {
		return nil
	}
	list = append(list, asked)
	for _, name := range info.Names {
		key, _, _ := strings.Cut(name, "\n")
		u, err := url.Parse(key)
		if err != nil || u.Host == "" || u.RawQuery != "" || key == asked || u.Scheme != "http" && u.Scheme != "https" {
			continue
		}
		if len(list) == maxMirrors {
			break
		}
		list = append(list, key)
	}
	return list
}

// objectURL is where clients find an object, as a whole address.
func (s *Server) objectURL(r *http.Request, info cache.Info, name string) string {
	return "http://" + s.address(r) + "/o/" + info.ID.String() + "?name=" + url.QueryEscape(name)
}

// metalinkURL is where they find its metalink.
func (s *Server) metalinkURL(r *http.Request, info cache.Info, name string) string {
	return "http://" + s.address(r) + "/o/" + info.ID.String() + ".meta4?name=" + url.QueryEscape(name)
}

// describe names the metalink of an object in the header of an answer that
// brings it (RFC 6249 §4).
func (s *Server) describe(r *http.Request, h http.Header, info cache.Info, name string) {
	if info.Complete && info.Public && info.Size > 0 && !encoded(h) {
		h.Add("Link", "<"+s.metalinkURL(r, info, safeName(name, info))+`>; rel=describedby; type="`+metalinkType+`"`)
	}
}

// negotiate answers GET for an address by a metalink to clients that say they
// take one, and by a redirect that names it to those that only follow such
// (RFC 6249), if the file is here whole and fresh. False: it has not answered.
func (s *Server) negotiate(w http.ResponseWriter, r *http.Request) bool {
	takes, follows := acceptsMetalink(r.Header), followsMetalink(r.Header)
	if !takes && !follows || r.Method != http.MethodGet || r.Header.Get("Range") != "" {
		return false
	}
	q, err := s.query(r)
	if err != nil {
		return false // the plain way says what is wrong
	}
	f := s.lookup(q)
	if f == nil || f.other || f.head.Status != http.StatusOK || encoded(f.head.Header) || !f.info.Complete || !f.info.Public || f.info.Size == 0 {
		return false
	}
	if v := httpcache.Decide(r, f.head, time.Now()); v.Action != httpcache.Serve || v.Background {
		return false
	}
	sums, err := s.sums(r.Context(), f.info, sumsPatience)
	if err != nil {
		return false // another time
	}
	q.why = "its metalink stands for it while it is fresh (RFC 6249)"
	a := &answer{found: f, status: httpcache.CacheStatus{Hit: true}}
	account(r, q, a)
	s.tally(r, a)
	name := safeName(path.Base(r.URL.Path), f.info)
	if takes {
		s.sendMetalink(w, r, f.info, name, "", sums)
		return true
	}
	h := w.Header()
	at := s.objectURL(r, f.info, name)
	h.Set("Location", at)
	h.Add("Link", "<"+at+">; rel=duplicate; pri=1")
	s.describe(r, h, f.info, name)
	setDigests(h, sums.Whole, true, true)
	httpcache.CacheStatus{Hit: true, Detail: "metalink (RFC 6249)"}.AppendTo(h)
	s.say(w, r, http.StatusFound, "text/plain; charset=utf-8", at+"\n")
	return true
}

// encoded reports whether a body is compressed or the like for its transport: by
// its identity it would come without anybody undoing that.
func encoded(h http.Header) bool {
	coding := h.Get("Content-Encoding")
	return coding != "" && !strings.EqualFold(coding, "identity")
}

// acceptsMetalink reports whether a client names the type of metalinks.
func acceptsMetalink(h http.Header) bool {
	for _, line := range h.Values("Accept") {
		for member := range strings.SplitSeq(line, ",") {
			mediaType, params, _ := strings.Cut(member, ";")
			if strings.EqualFold(strings.TrimSpace(mediaType), metalinkType) && !zeroQuality(params) {
				return true
			}
		}
	}
	return false
}

// zeroQuality reports whether parameters have a weight of 0 (RFC 9110 §12.4.2).
func zeroQuality(params string) bool {
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		if q, err := strconv.ParseFloat(value, 64); strings.EqualFold(name, "q") && (err != nil || q <= 0) {
			return true
		}
	}
	return false
}

// followsMetalink reports whether a client is known to look at Link and Digest of
// a redirect, and only there. wget2 does not say so in any field but its name.
func followsMetalink(h http.Header) bool {
	return strings.HasPrefix(strings.ToLower(h.Get("User-Agent")), "wget2/")
}

// sums gives the digests of a complete object, and waits a little for them.
func (s *Server) sums(ctx context.Context, info cache.Info, patience time.Duration) (*digest.Sums, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s.digests.Sums(ctx, info.ID, info.Num)
}

// suffixed reports whether an address is that of a file that is here, with .meta4
// behind it, and nothing is here that has this very address.
func (s *Server) suffixed(r *http.Request) bool {
	if !strings.HasSuffix(r.URL.Path, ".meta4") {
		return false
	}
	bare := *r.URL
	bare.Path, bare.RawPath = cutMeta4(bare.Path), cutMeta4(bare.RawPath)
	own, err := httpcache.Key(r.URL)
	key, berr := httpcache.Key(&bare)
	if err != nil || berr != nil || s.named(own) != nil {
		return false
	}
	f := s.named(key)
	return f != nil && f.info.Public && f.head.Status == http.StatusOK
}

func cutMeta4(path string) string { return strings.TrimSuffix(path, ".meta4") }

// parseObjectForm is parseObject for an address that may have .meta4 behind it,
// which a file of a torrent may have as well.
func (s *Server) parseObjectForm(escaped string) (id content.ID, name string, meta4 bool, err error) {
	id, name, err = parseObject(escaped)
	bare := cutMeta4(escaped)
	if bare == escaped {
		return id, name, false, err
	}
	if err == nil {
		if _, _, ok := s.store.Lookup(objectName(id, name)); ok {
			return id, name, false, nil
		}
	}
	id, name, err = parseObject(bare)
	return id, name, true, err
}

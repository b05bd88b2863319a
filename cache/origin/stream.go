package origin

import (
	"context"
	"errors"
	"net/http"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

func (m *Mirrors) open(context.Context, *http.Request, *httpcache.Response, int64) (*content.Offer, error) {
	return nil, errors.New("not built yet")
}

// Ranges is a Source that brings what a sink misses by HTTP ranges from one
// address, a few at a time. What it brings is only as good as the sink's proof:
// it is for addresses that name an object by its identity.
func Ranges(_ *http.Client, _, _ string) content.Source { return nil }

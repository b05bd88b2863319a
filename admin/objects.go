package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// object is an object in the API's words.
func object(i cache.Info) client.Object {
	o := client.Object{
		Num: i.Num, Title: i.Title, State: stateOf(i), Size: i.Size, Readable: i.Readable, Trust: i.Trust.String(),
		Public: i.Public, Pinned: i.Pinned, Names: i.Names, Created: i.Created, Used: i.Used, From: i.From, Served: i.Served,
	}
	if !i.ID.IsZero() {
		o.ID = i.ID.String()
	}
	if o.Names == nil {
		o.Names = []string{}
	}
	return o
}

func objects(list []cache.Info) []client.Object {
	all := make([]client.Object, len(list))
	for n, i := range list {
		all[n] = object(i)
	}
	return all
}

func stateOf(i cache.Info) string {
	switch {
	case i.Complete:
		return client.Complete
	case i.Filling:
		return client.Filling
	default:
		return client.Partial
	}
}

// minPrefix is how many digits of an identity name an object, at least.
const minPrefix = 8

// find resolves what people call an object: its number, identity, name in the
// store, URL, or else the beginning of its identity, its title or the last part
// of its title, if only one object has it.
func (s *Server) find(which string) (cache.Info, error) {
	if num, err := strconv.ParseUint(which, 10, 64); err == nil {
		if i, ok := s.parts.Objects.Get(num); ok {
			return i, nil
		}
	}
	if id, err := content.ParseID(which); err == nil {
		if i, ok := s.parts.Objects.ByID(id); ok {
			return i, nil
		}
	}
	if i, _, ok := s.parts.Objects.Lookup(which); ok {
		return i, nil
	}
	if u, err := url.Parse(which); err == nil {
		if key, err := httpcache.Key(u); err == nil {
			if i, _, ok := s.parts.Objects.Lookup(key); ok {
				return i, nil
			}
		}
	}
	return s.guess(which)
}

func (s *Server) guess(which string) (cache.Info, error) {
	var found []cache.Info
	for _, i := range s.parts.Objects.List() {
		prefix := len(which) >= minPrefix && !i.ID.IsZero() && strings.HasPrefix(i.ID.String(), strings.ToLower(which))
		if prefix || i.Title == which || path.Base(i.Title) == which {
			found = append(found, i)
		}
	}
	switch len(found) {
	case 0:
		return cache.Info{}, huma.Error404NotFound(fmt.Sprintf("the store has no object %q", which))
	case 1:
		return found[0], nil
	}
	var nums []string
	for _, i := range found[:min(len(found), 10)] {
		nums = append(nums, strconv.FormatUint(i.Num, 10))
	}
	return cache.Info{}, huma.Error409Conflict(fmt.Sprintf("%d objects are called %q; say which by number: %s", len(found), which, strings.Join(nums, ", ")))
}

// change does something to one object and gives what it is then, or was.
func (s *Server) change(which string, do func(num uint64) error) (client.Object, error) {
	info, err := s.find(which)
	if err != nil {
		return client.Object{}, err
	}
	if err := do(info.Num); err != nil {
		return client.Object{}, err
	}
	if now, ok := s.parts.Objects.Get(info.Num); ok {
		info = now
	}
	return object(info), nil
}

// add brings in whatever one field of the addition names.
func (s *Server) add(ctx context.Context, what client.Addition) (client.Added, error) {
	set := 0
	for _, given := range []bool{what.URL != "", what.Magnet != "", len(what.Torrent) > 0} {
		if given {
			set++
		}
	}
	if set != 1 {
		return client.Added{}, huma.Error422UnprocessableEntity("give exactly one of url, magnet and torrent")
	}
	link := what.Magnet
	if namesTorrent(what.URL) {
		link = what.URL
	} else if what.URL != "" {
		return s.fetch(ctx, what.URL)
	}
	if s.parts.Swarms == nil {
		return client.Added{}, off("peering")
	}
	var swarm Swarm
	var err error
	if link != "" {
		swarm, err = s.parts.Swarms.AddLink(ctx, link)
	} else {
		swarm, err = s.parts.Swarms.AddTorrent(ctx, what.Torrent)
	}
	if err != nil {
		return client.Added{}, addFault(err, http.StatusUnprocessableEntity)
	}
	return client.Added{Infohash: swarm.Infohash, Name: swarm.Name}, nil
}

// namesTorrent reports whether an address is that of a .torrent file or a
// metalink: whoever adds it wants the content.
func namesTorrent(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ext := strings.ToLower(path.Ext(u.Path))
	return ext == ".torrent" || ext == ".meta4"
}

// fetch brings in a URL. It goes the way that a client's request goes, so what
// the proxy refuses is refused here.
func (s *Server) fetch(ctx context.Context, address string) (client.Added, error) {
	u, err := url.Parse(address)
	if err == nil {
		_, err = httpcache.Key(u)
	}
	if err != nil {
		return client.Added{}, huma.Error422UnprocessableEntity(err.Error())
	}
	if s.parts.Fetcher == nil {
		return client.Added{}, off("proxy")
	}
	info, err := s.parts.Fetcher.Fetch(ctx, u)
	if err != nil {
		return client.Added{}, addFault(err, http.StatusBadGateway)
	}
	return client.Added{Object: info.Num, Name: info.Title}, nil
}

// addFault gives an error of a part the status that fits an addition.
func addFault(err error, otherwise int) error {
	if errors.Is(err, content.ErrFull) || errors.Is(err, cache.ErrDenied) {
		return err
	}
	return huma.NewError(otherwise, err.Error())
}

package admin

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

type (
	askOrder    struct{ Body client.Order }
	askTakedown struct {
		What string `query:"what" required:"true" minLength:"1" maxLength:"8192" doc:"What was taken down"`
	}
	askMatch struct {
		Match string `query:"match" required:"true" minLength:"1" maxLength:"1024" doc:"Pattern of names: a host, host/path or URL in which * stands for any text"`
	}
	askList struct {
		Match string `query:"match" maxLength:"1024" doc:"Only objects with a name that fits this pattern: a host, host/path or URL in which * stands for any text"`
	}
)

// keeping are the operations on what the store keeps.
func (s *Server) keeping(a huma.API) {
	offer(a, http.MethodDelete, "/objects", "evict-matching", "Remove the objects that a pattern of names fits, pinned ones included", func(_ context.Context, in *askMatch) (client.Evicted, error) {
		if err := cache.CheckPattern(in.Match); err != nil {
			return client.Evicted{}, huma.Error422UnprocessableEntity(err.Error())
		}
		n, bytes, err := s.parts.Objects.EvictMatching(in.Match)
		return client.Evicted{Objects: n, Bytes: bytes}, err
	})
	offer(a, http.MethodPost, "/takedowns", "purge", "Take something down for good: it leaves the store and may not come back", func(ctx context.Context, in *askOrder) (client.Purged, error) {
		return s.purge(in.Body, caller(ctx))
	})
	offer(a, http.MethodGet, "/takedowns", "list-takedowns", "What is taken down, newest first", func(context.Context, *ask) ([]client.Takedown, error) {
		return s.takedowns(), nil
	})
	offer(a, http.MethodDelete, "/takedowns", "lift", "Let back what was taken down", func(ctx context.Context, in *askTakedown) (client.Takedown, error) {
		return s.lift(in.What, caller(ctx))
	}, http.StatusNotFound)
	offer(a, http.MethodGet, "/takedowns/audit", "audit", "What was taken down, removed and let back, oldest first", func(context.Context, *ask) ([]client.AuditLine, error) {
		return s.audit()
	})
	offer(a, http.MethodGet, "/scrub", "get-scrub", "How far the scrub is that somebody has asked for", func(context.Context, *ask) (client.Scrub, error) {
		return s.scrub.now(), nil
	})
	offer(a, http.MethodPost, "/scrub", "start-scrub", "Check every body in the store now, in the background", func(_ context.Context, in *askScrub) (client.Scrub, error) {
		return s.startScrub(in.Body.Rate)
	}, http.StatusConflict)
	offer(a, http.MethodDelete, "/scrub", "stop-scrub", "End the scrub that runs", func(context.Context, *ask) (client.Scrub, error) {
		return s.scrub.stop(), nil
	})
}

// list gives the objects that a pattern fits; all without one.
func (s *Server) list(pattern string) ([]client.Object, error) {
	list := s.parts.Objects.List()
	if pattern == "" {
		return objects(list), nil
	}
	if err := cache.CheckPattern(pattern); err != nil {
		return nil, huma.Error422UnprocessableEntity(err.Error())
	}
	fit := []cache.Info{}
	for _, i := range list {
		for _, name := range i.Names {
			if cache.Match(pattern, name) {
				fit = append(fit, i)
				break
			}
		}
	}
	return objects(fit), nil
}

// usual gives what people want taken down the form that the store knows: URLs
// are normalised as the proxy does it.
func usual(what string) (string, error) {
	what = strings.TrimSpace(what)
	if !strings.Contains(what, "*") {
		if u, err := url.Parse(what); err == nil {
			if key, err := httpcache.Key(u); err == nil {
				what = key
			}
		}
	}
	form, err := cache.CheckDenial(what)
	if err != nil {
		return "", huma.Error422UnprocessableEntity(err.Error())
	}
	return form, nil
}

func (s *Server) purge(order client.Order, by string) (client.Purged, error) {
	what, err := usual(order.What)
	if err != nil {
		return client.Purged{}, err
	}
	removed, err := s.parts.Objects.Purge(what, strings.TrimSpace(order.Why), by)
	if err != nil {
		return client.Purged{}, err
	}
	s.log.Info("took something down", "title", what, "client", by, "removed", len(removed))
	return client.Purged{What: what, Removed: objects(removed), Searching: strings.HasPrefix(what, "sha256:")}, nil
}

func (s *Server) lift(what, by string) (client.Takedown, error) {
	form, err := usual(what)
	if err != nil {
		return client.Takedown{}, err
	}
	was := client.Takedown{What: form}
	for _, t := range s.takedowns() {
		if t.What == form {
			was = t
		}
	}
	if err := s.parts.Objects.Lift(form, by); err != nil {
		return client.Takedown{}, err
	}
	s.log.Info("let back what was taken down", "title", form, "client", by)
	return was, nil
}

func (s *Server) takedowns() []client.Takedown {
	list := []client.Takedown{}
	for _, n := range s.parts.Objects.Denials() {
		list = append(list, client.Takedown{What: n.What, Why: n.Why, By: n.By, At: n.At})
	}
	return list
}

func (s *Server) audit() ([]client.AuditLine, error) {
	all, err := s.parts.Objects.Audit()
	list := []client.AuditLine{}
	for _, e := range all {
		list = append(list, client.AuditLine{
			What: e.What, Why: e.Why, By: e.By, At: e.At, Action: e.Action, Object: e.Object, Title: e.Title,
		})
	}
	return list, err
}

package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// Bounds of a request's body, in bytes.
const (
	maxBody    = 64 << 10
	maxTorrent = 24 << 20 // a torrent of 16 MiB in base64
)

// apiPrefix begins every path of the API.
const apiPrefix = "/api/v1"

// reply and ask give handlers the shapes that huma wants.
type reply[T any] struct{ Body T }

type (
	ask       struct{}
	askObject struct {
		Object string `path:"object" maxLength:"16384" doc:"Number, identity (or its beginning), name, or a title that only one object has"`
	}
	askAgent struct {
		Node string `path:"node" maxLength:"64" doc:"NormNodeId"`
	}
	askAddition struct{ Body client.Addition }
	askExplain  struct {
		URL string `query:"url" required:"true" maxLength:"8192" doc:"An http or https URL"`
	}
	askSnippets struct {
		Address string `query:"address" maxLength:"300" doc:"The box's address, with a port; empty: what the box thinks that it is"`
	}
)

// Resolve notes where the box is for whoever asks.
func (a *askSnippets) Resolve(ctx huma.Context) []error {
	if a.Address == "" {
		a.Address, _ = ctx.Context().Value(proxyKey{}).(string)
	}
	return nil
}

// proxyKey holds the proxy's host:port for the sender of a request, callerKey
// who that is.
type (
	proxyKey  struct{}
	callerKey struct{}
)

// caller is who sent a request, for the audit.
func caller(ctx context.Context) string {
	who, _ := ctx.Value(callerKey{}).(string)
	return who
}

// api builds the JSON API and its description.
func (s *Server) api() (http.Handler, *description, error) {
	mux := http.NewServeMux()
	d, err := describe(s.register(mux))
	if err != nil {
		return nil, nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), proxyKey{}, s.proxyFor(r))
		mux.ServeHTTP(w, r.WithContext(context.WithValue(ctx, callerKey{}, s.whoIs(r))))
	}), d, nil
}

// register takes up all that the API does, and describes it.
func (s *Server) register(mux humago.Mux) *huma.OpenAPI {
	cfg := huma.DefaultConfig("Cistern", s.cfg.Version)
	cfg.Info.Description = "Shows and commands one box. Send the admin token as Authorization: Bearer."
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath, cfg.CreateHooks = "", "", "", nil
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":   {Type: "http", Scheme: "bearer", Description: "Content of " + client.TokenFile + " in the data directory"},
		"session": {Type: "apiKey", In: "cookie", Name: s.sessions.Cookie.Name},
	}
	cfg.Security = []map[string][]string{{"token": {}}, {"session": {}}}
	a := humago.NewWithPrefix(mux, apiPrefix, cfg)
	s.reads(a)
	s.commands(a)
	s.keeping(a)
	s.system(a, mux)
	s.measuring(a)
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		problem(w, http.StatusNotFound, "the API has no "+r.URL.Path+"; see /api/v1/docs")
	})
	return a.OpenAPI()
}

// reads are the operations that change nothing.
func (s *Server) reads(a huma.API) {
	offer(a, http.MethodGet, "/status", "status", "The box at a glance", func(ctx context.Context, _ *ask) (client.Status, error) {
		proxy, _ := ctx.Value(proxyKey{}).(string)
		return s.status(proxy), nil
	})
	offer(a, http.MethodGet, "/objects", "list-objects", "What is in the store, newest first", func(_ context.Context, in *askList) ([]client.Object, error) {
		return s.list(in.Match)
	})
	offer(a, http.MethodGet, "/objects/{object}", "get-object", "One object", func(_ context.Context, in *askObject) (client.Object, error) {
		info, err := s.find(in.Object)
		return object(info), err
	}, http.StatusNotFound, http.StatusConflict)
	offer(a, http.MethodGet, "/swarms", "list-swarms", "Torrents that the box has joined", func(context.Context, *ask) ([]client.Swarm, error) {
		return s.swarms(), nil
	})
	offer(a, http.MethodGet, "/torrent-clients", "list-torrent-clients", "Torrent clients of the LAN and the flows that the box spared them", func(context.Context, *ask) ([]client.TorrentClient, error) {
		return s.torrentClients(), nil
	})
	offer(a, http.MethodGet, "/casts", "list-casts", "Multicast sessions, newest first", func(context.Context, *ask) ([]client.Cast, error) {
		return s.casts(), nil
	})
	offer(a, http.MethodGet, "/agents", "list-agents", "Agents enrolled with this box", func(context.Context, *ask) ([]client.Agent, error) {
		return s.agents(), nil
	})
	offer(a, http.MethodGet, "/enrolment", "get-enrolment", "What an agent needs to enrol", func(ctx context.Context, _ *ask) (client.Enrolment, error) {
		if s.parts.Agents == nil {
			return client.Enrolment{}, off("multicast")
		}
		proxy, _ := ctx.Value(proxyKey{}).(string)
		return s.enrolment(proxy), nil
	}, http.StatusServiceUnavailable)
	offer(a, http.MethodGet, "/snippets", "get-snippets", "Lines that make a DHCP server announce the box", func(_ context.Context, in *askSnippets) ([]client.Snippet, error) {
		list, err := client.Snippets(in.Address)
		if err != nil {
			return nil, huma.Error422UnprocessableEntity(err.Error())
		}
		return list, nil
	})
	offer(a, http.MethodGet, "/explain", "explain", "What the box would do with a URL, and why", func(_ context.Context, in *askExplain) (client.Explanation, error) {
		return s.explain(in.URL)
	})
	offer(a, http.MethodGet, "/requests", "list-requests", "How the last requests were answered, newest first", func(_ context.Context, in *askPast) ([]client.Request, error) {
		return s.past(in)
	})
	offer(a, http.MethodGet, "/objects/{object}/explain", "explain-object", "How an object is kept, and why", func(_ context.Context, in *askObject) (client.Explanation, error) {
		return s.explainObject(in.Object)
	}, http.StatusNotFound, http.StatusConflict)
}

// commands are the operations that change something.
func (s *Server) commands(a huma.API) {
	offer(a, http.MethodPost, "/add", "add", "Bring in a URL, a magnet link or a torrent", func(ctx context.Context, in *askAddition) (client.Added, error) {
		return s.add(ctx, in.Body)
	}, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusInsufficientStorage)
	pin := func(pinned bool) func(context.Context, *askObject) (client.Object, error) {
		return func(_ context.Context, in *askObject) (client.Object, error) {
			return s.change(in.Object, func(num uint64) error { return s.parts.Objects.Pin(num, pinned) })
		}
	}
	offer(a, http.MethodPut, "/objects/{object}/pin", "pin", "Keep an object whatever room is needed", pin(true), http.StatusNotFound, http.StatusConflict)
	offer(a, http.MethodDelete, "/objects/{object}/pin", "unpin", "Let go of an object", pin(false), http.StatusNotFound, http.StatusConflict)
	offer(a, http.MethodDelete, "/objects/{object}", "evict", "Remove an object, stopping its fill", func(_ context.Context, in *askObject) (client.Object, error) {
		return s.change(in.Object, s.parts.Objects.Evict)
	}, http.StatusNotFound, http.StatusConflict)
	offer(a, http.MethodPost, "/objects/{object}/cast", "cast", "Send an object to the agents by multicast", func(ctx context.Context, in *askObject) (client.Object, error) {
		if s.parts.Casts == nil {
			return client.Object{}, off("multicast")
		}
		return s.change(in.Object, func(num uint64) error { return s.parts.Casts.Start(ctx, num) })
	}, http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable)
	offer(a, http.MethodDelete, "/agents/{node}", "revoke-agent", "Take an agent's enrolment away", func(ctx context.Context, in *askAgent) (client.Agent, error) {
		return s.revoke(ctx, in.Node)
	}, http.StatusNotFound, http.StatusServiceUnavailable)
}

// offer registers one operation.
func offer[I, O any](a huma.API, method, path, id, summary string, do func(context.Context, *I) (O, error), faults ...int) {
	op := huma.Operation{
		Method: method, Path: path, OperationID: id, Summary: summary,
		Errors: append(faults, http.StatusUnauthorized, http.StatusForbidden, http.StatusUnprocessableEntity), MaxBodyBytes: maxBody,
	}
	if id == "add" {
		op.MaxBodyBytes = maxTorrent
	}
	huma.Register(a, op, func(ctx context.Context, in *I) (*reply[O], error) {
		out, err := do(ctx, in)
		if err != nil {
			return nil, asProblem(err)
		}
		return &reply[O]{out}, nil
	})
}

// asProblem gives an error the status that fits it. Those who read it have
// proved who they are; they get the whole text.
func asProblem(err error) error {
	var said huma.StatusError
	switch {
	case errors.As(err, &said):
		return said
	case errors.Is(err, cache.ErrNotFound):
		return huma.Error404NotFound(err.Error())
	case errors.Is(err, cache.ErrDenied):
		return huma.NewError(http.StatusUnavailableForLegalReasons, err.Error())
	case errors.Is(err, cache.ErrIncomplete):
		return huma.Error409Conflict(err.Error())
	case errors.Is(err, content.ErrFull):
		return huma.NewError(http.StatusInsufficientStorage, err.Error()+"; evict or unpin something, or raise store.max_bytes")
	default:
		return huma.Error500InternalServerError(err.Error())
	}
}

// off says that a part is not running.
func off(part string) error {
	return huma.Error503ServiceUnavailable(fmt.Sprintf("%s is off; the section [%s] of the configuration turns it on", part, part))
}

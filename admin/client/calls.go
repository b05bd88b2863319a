package client

import (
	"context"
	"net/http"
	"net/url"
)

// Status gives the box's figures.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/status")
}

// Objects lists what is in the store, newest first.
func (c *Client) Objects(ctx context.Context) ([]Object, error) {
	return get[[]Object](ctx, c, "/objects")
}

// Object finds one object by its number, identity (or the beginning of it), a
// name or a title that only one object has.
func (c *Client) Object(ctx context.Context, which string) (Object, error) {
	return get[Object](ctx, c, object(which))
}

// Pin keeps an object whatever room is needed.
func (c *Client) Pin(ctx context.Context, which string) (Object, error) {
	return call[Object](ctx, c, http.MethodPut, object(which)+"/pin", nil)
}

// Unpin lets go of an object.
func (c *Client) Unpin(ctx context.Context, which string) (Object, error) {
	return call[Object](ctx, c, http.MethodDelete, object(which)+"/pin", nil)
}

// Evict removes an object, stopping its fill, and gives what it was.
func (c *Client) Evict(ctx context.Context, which string) (Object, error) {
	return call[Object](ctx, c, http.MethodDelete, object(which), nil)
}

// Cast starts to send an object to the enrolled agents by multicast.
func (c *Client) Cast(ctx context.Context, which string) (Object, error) {
	return call[Object](ctx, c, http.MethodPost, object(which)+"/cast", nil)
}

// Add starts to bring something in.
func (c *Client) Add(ctx context.Context, what Addition) (Added, error) {
	return call[Added](ctx, c, http.MethodPost, "/add", what)
}

// Swarms lists the torrents that the box has joined.
func (c *Client) Swarms(ctx context.Context) ([]Swarm, error) {
	return get[[]Swarm](ctx, c, "/swarms")
}

// TorrentClients lists the hosts that the box keeps from peers outside, those with
// the most flows avoided first.
func (c *Client) TorrentClients(ctx context.Context) ([]TorrentClient, error) {
	return get[[]TorrentClient](ctx, c, "/torrent-clients")
}

// Casts lists multicast sessions.
func (c *Client) Casts(ctx context.Context) ([]Cast, error) {
	return get[[]Cast](ctx, c, "/casts")
}

// Agents lists the enrolled agents.
func (c *Client) Agents(ctx context.Context) ([]Agent, error) {
	return get[[]Agent](ctx, c, "/agents")
}

// Revoke takes an agent's enrolment away.
func (c *Client) Revoke(ctx context.Context, node string) error {
	return c.do(ctx, http.MethodDelete, "/agents/"+url.PathEscape(node), nil, nil)
}

// Enrolment gives the line that enrols an agent.
func (c *Client) Enrolment(ctx context.Context) (Enrolment, error) {
	return get[Enrolment](ctx, c, "/enrolment")
}

// Explain says what the box would do with a URL, and why.
func (c *Client) Explain(ctx context.Context, address string) (Explanation, error) {
	return get[Explanation](ctx, c, "/explain?url="+url.QueryEscape(address))
}

// Snippets gives the DHCP lines that lead LAN hosts to the box. address is the
// box's, or empty for what the box thinks that it is.
func (c *Client) Snippets(ctx context.Context, address string) ([]Snippet, error) {
	return get[[]Snippet](ctx, c, "/snippets?address="+url.QueryEscape(address))
}

func object(which string) string { return "/objects/" + url.PathEscape(which) }

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return call[T](ctx, c, http.MethodGet, path, nil)
}

func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var answer T
	err := c.do(ctx, method, path, body, &answer)
	return answer, err
}

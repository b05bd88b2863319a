// Package client is a thin client of a box's API, and the words that the API is
// made of: the server answers with these very types.
//
// It knows no other package of the project, so that anybody's program can use
// it. It refuses to follow redirects, and to send the token that it found in a
// directory to another machine. Start reading at [New].
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultBox is where a box's API listens unless configured otherwise.
const DefaultBox = "http://127.0.0.1:8080"

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 64 << 20

// Config says which box, and how to prove who is asking.
type Config struct {
	// Box is the address of the API, scheme and host; empty means DefaultBox.
	Box string
	// Token is the admin token; see FindToken.
	Token string
	// Timeout of one request; 0 means 60 s (adding a URL waits for its head).
	Timeout time.Duration
}

// Client asks one box. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// New checks the configuration; it asks the box nothing.
func New(cfg Config) (*Client, error) {
	if cfg.Box == "" {
		cfg.Box = DefaultBox
	}
	base, err := url.Parse(strings.TrimSuffix(cfg.Box, "/"))
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.Path != "" || base.User != nil {
		return nil, fmt.Errorf("box %q: want an address such as %s", cfg.Box, DefaultBox)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	return &Client{base: base, token: cfg.Token, http: &http.Client{
		Timeout: cfg.Timeout,
		// The box is on this LAN; a proxy for the outside is not the way to it.
		Transport:     &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Box is the address that the client asks.
func (c *Client) Box() string { return c.base.String() }

// Error is a box's refusal.
type Error struct {
	// Status is the HTTP status code.
	Status int
	// Detail says what was wrong, in the box's words.
	Detail string
}

// Error gives the detail and the status.
func (e *Error) Error() string {
	return fmt.Sprintf("%s (%d %s)", e.Detail, e.Status, http.StatusText(e.Status))
}

// ErrUnreachable says that no box answered.
var ErrUnreachable = errors.New("no box answers")

// do sends one request and decodes the answer. path is escaped already.
func (c *Client) do(ctx context.Context, method, path string, body, answer any) error {
	var payload io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+"/api/v1"+path, payload)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.base, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("read answer: %w", err)
	case len(data) > maxAnswer:
		return fmt.Errorf("read answer: more than %d bytes", maxAnswer)
	case resp.StatusCode >= 300:
		return refusal(resp.StatusCode, data)
	case answer == nil:
		return nil
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("read answer of %s: is this a box? %w", c.base, err)
	}
	return nil
}

// refusal reads an error as RFC 9457 has it, with the places that huma adds.
func refusal(status int, data []byte) error {
	var problem struct {
		Detail string
		Errors []struct{ Message, Location string }
	}
	if json.Unmarshal(data, &problem) != nil || problem.Detail == "" {
		problem.Detail = "the box refused"
	}
	for _, e := range problem.Errors {
		problem.Detail += "; " + e.Message
		if e.Location != "" {
			problem.Detail += " at " + e.Location
		}
	}
	return &Error{Status: status, Detail: problem.Detail}
}

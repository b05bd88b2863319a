package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Volume is one disk of the store. All counts are bytes.
type Volume struct {
	Dir   string `json:"dir" doc:"Directory of the volume"`
	Bytes int64  `json:"bytes" doc:"Bytes that objects take there"`
	Free  int64  `json:"free" doc:"Bytes that are free on the disk; 0 if it does not say"`
	Total int64  `json:"total" doc:"Size of the disk; 0 if it does not say"`
	State string `json:"state" enum:"well,sick,gone" doc:"Whether it can be written (well), only read (sick) or neither (gone)"`
	Why   string `json:"why,omitempty" doc:"What is wrong with it"`
}

// States of a volume.
const (
	Well = "well" // read and written
	Sick = "sick" // read, but not written: full, or read-only
	Gone = "gone" // neither
)

// Service is a part of the store with a bound of its own. All counts are bytes.
type Service struct {
	Name  string `json:"name" doc:"Name of the quota"`
	Bytes int64  `json:"bytes" doc:"Bytes that its objects take"`
	Quota int64  `json:"quota" doc:"Bytes that they may take"`
}

// Range is the bytes from Off up to but not including End.
type Range struct {
	Off int64 `json:"off" doc:"First byte"`
	End int64 `json:"end" doc:"Byte after the last"`
}

// Part is a range and the source that brought it.
type Part struct {
	Off    int64  `json:"off" doc:"First byte"`
	End    int64  `json:"end" doc:"Byte after the last"`
	Source string `json:"source" doc:"Who brought it"`
}

// Kept is how the store keeps an object, and why.
type Kept struct {
	Here     []Range `json:"here" nullable:"false" doc:"What readers may have now"`
	Parts    []Part  `json:"parts" nullable:"false" doc:"Which source brought which range"`
	Vouched  string  `json:"vouched" doc:"Who vouches for the bytes"`
	Volume   string  `json:"volume" doc:"Directory of the disk that has the body"`
	Segment  uint32  `json:"segment,omitempty" doc:"Number of the segment that has a small object"`
	Checked  int64   `json:"checked" doc:"Bytes hashed since the start"`
	Service  string  `json:"service,omitempty" doc:"Quota that it counts for"`
	Eviction string  `json:"eviction" doc:"When it would be evicted"`
}

// Evicted says what an eviction by pattern has removed.
type Evicted struct {
	Objects int   `json:"objects" doc:"Objects removed"`
	Bytes   int64 `json:"bytes" doc:"Bytes that they took"`
}

// Order is something to be taken down for good.
type Order struct {
	What string `json:"what" minLength:"1" maxLength:"8192" doc:"A URL, a pattern of hosts or URLs with *, btih:<infohash>, sha256:<digest> or an identity"`
	Why  string `json:"why" minLength:"1" maxLength:"1000" doc:"The reason, for whoever asks for it and for the audit"`
}

// Takedown is what must not be in the store.
type Takedown struct {
	What string    `json:"what" doc:"What is taken down"`
	Why  string    `json:"why" doc:"The reason"`
	By   string    `json:"by" doc:"Who took it down"`
	At   time.Time `json:"at" doc:"When"`
}

// Purged is what came of an order.
type Purged struct {
	What      string   `json:"what" doc:"What is taken down, in its usual form"`
	Removed   []Object `json:"removed" nullable:"false" doc:"Objects that were removed"`
	Searching bool     `json:"searching" doc:"Whether all bodies are still being searched for the digest; the audit tells what is found"`
}

// AuditLine is one line of the audit.
type AuditLine struct {
	What   string    `json:"what" doc:"What was taken down or let back"`
	Why    string    `json:"why" doc:"The reason"`
	By     string    `json:"by" doc:"Who did it"`
	At     time.Time `json:"at" doc:"When it was taken down or let back"`
	Action string    `json:"action" enum:"denied,lifted,removed" doc:"What was done"`
	Object uint64    `json:"object,omitempty" doc:"Number of the object that was removed"`
	Title  string    `json:"title,omitempty" doc:"Its title"`
}

// ScrubOrder starts a pass of the scrub.
type ScrubOrder struct {
	Rate int64 `json:"rate,omitempty" minimum:"0" doc:"Bytes read in a second at most; 0 is no bound"`
}

// Scrub is the last pass of the scrub that somebody has asked for.
type Scrub struct {
	State   string    `json:"state" enum:"none,running,done,stopped" doc:"How far it is; none if nobody has asked since the start"`
	Started time.Time `json:"started,omitzero" doc:"When it began"`
	Ended   time.Time `json:"ended,omitzero" doc:"When it ended"`
	Rate    int64     `json:"rate" doc:"Bytes read in a second at most; 0 is no bound"`
	Objects int       `json:"objects" doc:"Objects checked"`
	Bytes   int64     `json:"bytes" doc:"Bytes checked"`
	// TotalObjects and TotalBytes are what there was at the beginning.
	TotalObjects int   `json:"total_objects" doc:"Objects to check"`
	TotalBytes   int64 `json:"total_bytes" doc:"Bytes to check"`
	Damaged      int64 `json:"damaged" doc:"Blocks and small objects that were not what came in"`
}

// States of a Scrub.
const (
	ScrubNone    = "none"
	ScrubRunning = "running"
	ScrubDone    = "done"
	ScrubStopped = "stopped"
)

// Matching lists the objects that a pattern of names fits, newest first.
func (c *Client) Matching(ctx context.Context, pattern string) ([]Object, error) {
	return get[[]Object](ctx, c, "/objects?match="+url.QueryEscape(pattern))
}

// EvictMatching removes the objects that a pattern of names fits, pinned ones
// included.
func (c *Client) EvictMatching(ctx context.Context, pattern string) (Evicted, error) {
	return call[Evicted](ctx, c, http.MethodDelete, "/objects?match="+url.QueryEscape(pattern), nil)
}

// ExplainObject says how an object is kept, and why. It is named as in Object.
func (c *Client) ExplainObject(ctx context.Context, which string) (Explanation, error) {
	return get[Explanation](ctx, c, object(which)+"/explain")
}

// Purge takes something down for good.
func (c *Client) Purge(ctx context.Context, order Order) (Purged, error) {
	return call[Purged](ctx, c, http.MethodPost, "/takedowns", order)
}

// Takedowns lists what is taken down, newest first.
func (c *Client) Takedowns(ctx context.Context) ([]Takedown, error) {
	return get[[]Takedown](ctx, c, "/takedowns")
}

// Lift lets back what was taken down.
func (c *Client) Lift(ctx context.Context, what string) error {
	return c.do(ctx, http.MethodDelete, "/takedowns?what="+url.QueryEscape(what), nil, nil)
}

// Audit lists what was taken down, removed and let back, oldest first.
func (c *Client) Audit(ctx context.Context) ([]AuditLine, error) {
	return get[[]AuditLine](ctx, c, "/takedowns/audit")
}

// Scrub says how far the last pass is that somebody has asked for.
func (c *Client) Scrub(ctx context.Context) (Scrub, error) {
	return get[Scrub](ctx, c, "/scrub")
}

// StartScrub starts a pass over everything; it goes on in the box.
func (c *Client) StartScrub(ctx context.Context, order ScrubOrder) (Scrub, error) {
	return call[Scrub](ctx, c, http.MethodPost, "/scrub", order)
}

// StopScrub ends the pass that runs.
func (c *Client) StopScrub(ctx context.Context) (Scrub, error) {
	return call[Scrub](ctx, c, http.MethodDelete, "/scrub", nil)
}

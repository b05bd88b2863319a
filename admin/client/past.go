package client

import (
	"context"
	"net/url"
	"strconv"
	"time"
)

// Request is a request that the box has answered. Durations are milliseconds
// from its arrival; 0 stands for what did not happen.
type Request struct {
	At        time.Time `json:"at" doc:"When it came"`
	Client    string    `json:"client" doc:"Address of the client"`
	Method    string    `json:"method" doc:"Its method"`
	URL       string    `json:"url" doc:"What it was for"`
	Status    int       `json:"status" doc:"Status of the answer; 0 if the client left before"`
	Hit       bool      `json:"hit" doc:"Answered without the origin"`
	Fwd       string    `json:"fwd,omitempty" doc:"Why it was forwarded (RFC 9211)"`
	FwdStatus int       `json:"fwd_status,omitempty" doc:"Status that the origin answered"`
	Stored    bool      `json:"stored,omitempty" doc:"The origin's answer was stored"`
	Collapsed bool      `json:"collapsed,omitempty" doc:"It shared the answer to another request"`
	Why       string    `json:"why,omitempty" doc:"The rule that decided"`
	Detail    string    `json:"detail,omitempty" doc:"What came of it"`
	Object    uint64    `json:"object,omitempty" doc:"Number of the object that it was answered with"`
	Bytes     int64     `json:"bytes" doc:"Bytes of the body that were sent"`
	Asked     float64   `json:"asked_ms" doc:"When the origin was asked"`
	Answered  float64   `json:"answered_ms" doc:"When the head of its answer was here"`
	First     float64   `json:"first_ms" doc:"When the first byte went to the client"`
	Took      float64   `json:"took_ms" doc:"When the last byte did"`
	Where     string    `json:"where,omitempty" doc:"Where most of the time went, in a sentence"`
}

// PastQuery says which requests are wanted; what is zero does not matter.
type PastQuery struct {
	// URL is exact, or a beginning with * behind it. Client is an address or a
	// network.
	URL, Client  string
	Since, Until time.Time
	// Slow wants only what was slow or failed.
	Slow  bool
	Limit int
}

// Past gives how the last requests were answered, newest first.
func (c *Client) Past(ctx context.Context, q PastQuery) ([]Request, error) {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("url", q.URL)
	set("client", q.Client)
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339))
	}
	if !q.Until.IsZero() {
		v.Set("until", q.Until.Format(time.RFC3339))
	}
	if q.Slow {
		v.Set("slow", "true")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return get[[]Request](ctx, c, "/requests?"+v.Encode())
}

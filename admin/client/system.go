package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// System is the appliance under a box: which of its two systems runs, and what
// became of the last update.
type System struct {
	Version  string    `json:"version"`
	Slot     string    `json:"slot"`     // a or b
	OnTrial  bool      `json:"on_trial"` // a new system that has still to show that it works
	Healthy  bool      `json:"healthy"`
	Waiting  string    `json:"waiting,omitempty"` // for what, while it is not healthy
	Boots    uint64    `json:"boots"`             // starts of this box
	Started  time.Time `json:"started"`
	Restarts int       `json:"restarts"` // of the daemon since then
	Last     *Update   `json:"last,omitempty"`
}

// Update is what became of an update.
type Update struct {
	Version string    `json:"version"`
	Slot    string    `json:"slot"`
	State   string    `json:"state"` // trial, committed, refused, failed
	Reason  string    `json:"reason,omitempty"`
	Starts  int       `json:"starts"`
	Time    time.Time `json:"time"`
}

// System says how the appliance under the box is; an error where the box is no
// appliance.
func (c *Client) System(ctx context.Context) (System, error) {
	return get[System](ctx, c, "/system")
}

// Update sends an update file. A refusal is an error with the reason; else the
// box restarts into the new system.
func (c *Client) Update(ctx context.Context, file io.Reader) (u Update, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+"/api/v1/system/update", file)
	if err != nil {
		return u, fmt.Errorf("send the update: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/octet-stream")
	patient := *c.http
	patient.Timeout = 0 // ctx bounds it: disks and networks may be slow
	resp, err := patient.Do(req)
	if err != nil {
		return u, fmt.Errorf("send the update: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return u, fmt.Errorf("send the update: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return u, refusal(resp.StatusCode, data)
	}
	return u, json.Unmarshal(data, &u)
}

package client

import (
	"bytes"
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
	ReadyIn  float64   `json:"ready_in,omitempty"` // seconds from the kernel's start until it worked
	Restarts int       `json:"restarts"`           // of the daemon since then
	Firmware string    `json:"firmware"`           // BIOS, UEFI, or UEFI, Secure Boot
	// MemAvailable is how much memory programs could still have, in bytes.
	MemAvailable int64   `json:"mem_available,omitempty"`
	TimeFrom     string  `json:"time_from,omitempty"` // the server that the clock was set by
	Last         *Update `json:"last,omitempty"`
}

// Disk is a disk of the appliance's machine.
type Disk struct {
	Name     string   `json:"name"`
	Model    string   `json:"model,omitempty"`
	Bytes    int64    `json:"bytes"`
	Holds    []string `json:"holds"` // partitions, in words
	Own      bool     `json:"own"`   // the system was started from it
	USB      bool     `json:"usb"`
	TooSmall bool     `json:"too_small"` // for an installation
}

// SystemOrder is something that the appliance is to do.
type SystemOrder struct {
	Do    string `json:"do"`              // restart, reset, install, check-channel
	Disk  string `json:"disk,omitempty"`  // to install on
	Erase bool   `json:"erase,omitempty"` // whoever orders knows that reset and install erase
}

// What a SystemOrder can ask for.
const (
	Restart      = "restart"
	Reset        = "reset"         // to the state of the first start
	Install      = "install"       // copies the system to another disk
	CheckChannel = "check-channel" // updates if the channel has something newer
)

// Update is what became of an update.
type Update struct {
	Version string    `json:"version"`
	Slot    string    `json:"slot"`
	State   string    `json:"state"` // trial, committed, refused, failed, current; of an order: done
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
func (c *Client) Update(ctx context.Context, file io.Reader) (Update, error) {
	return c.command(ctx, "update", "application/octet-stream", file)
}

// Disks lists the disks of the appliance's machine.
func (c *Client) Disks(ctx context.Context) ([]Disk, error) {
	return get[[]Disk](ctx, c, "/system/disks")
}

// Order has the appliance do something. A refusal is an error with the reason.
func (c *Client) Order(ctx context.Context, o SystemOrder) (Update, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return Update{}, fmt.Errorf("order %s: %w", o.Do, err)
	}
	return c.command(ctx, "order", "application/json", bytes.NewReader(text))
}

// command sends what may take long: ctx alone bounds it.
func (c *Client) command(ctx context.Context, door, kind string, body io.Reader) (u Update, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+"/api/v1/system/"+door, body)
	if err != nil {
		return u, fmt.Errorf("send the %s: %w", door, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", kind)
	patient := *c.http
	patient.Timeout = 0 // disks and networks may be slow
	resp, err := patient.Do(req)
	if err != nil {
		return u, fmt.Errorf("send the %s: %w", door, err)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return u, fmt.Errorf("send the %s: %w", door, err)
	}
	if resp.StatusCode != http.StatusOK {
		return u, refusal(resp.StatusCode, data)
	}
	return u, json.Unmarshal(data, &u)
}

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
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
	MemAvailable int64     `json:"mem_available,omitempty"`
	MemTotal     int64     `json:"mem_total,omitempty"`
	Now          time.Time `json:"now"`                 // by the box's own clock
	TimeFrom     string    `json:"time_from,omitempty"` // the server that the clock was set by
	TimeServers  []string  `json:"time_servers"`        // that are asked
	Last         *Update   `json:"last,omitempty"`
	Slots        []Slot    `json:"slots"`
	Network      Network   `json:"network"`
	Syslog       string    `json:"syslog,omitempty"`  // server that gets the log; empty: none
	Channel      string    `json:"channel,omitempty"` // URL that updates come from; empty: by hand alone
	At           string    `json:"at,omitempty"`      // HH:MM in UTC at which it is looked at; empty: when asked
	SSH          SSH       `json:"ssh"`
}

// SSH is who may come in by SSH, as user cistern.
type SSH struct {
	On      bool     `json:"on"`                 // somebody may
	HostKey string   `json:"host_key,omitempty"` // fingerprint of the box's key
	Keys    []SSHKey `json:"keys"`
}

// SSHKey is a public key that lets in.
type SSHKey struct {
	Fingerprint string `json:"fingerprint"`
	Kind        string `json:"kind"`
	Comment     string `json:"comment,omitempty"`
}

// SSHLine is what lets a key in.
type SSHLine struct {
	Key string `json:"key" maxLength:"16384" doc:"A line of authorized_keys, without options: ed25519, ecdsa, or rsa of 2048 bits and more"`
}

// Slot is one of the two places for a system.
type Slot struct {
	Slot    string `json:"slot"`
	Version string `json:"version,omitempty"` // empty: nobody knows what is in it
	State   string `json:"state"`             // running, trial, next, previous, failed, unknown
	Starts  uint64 `json:"starts"`            // of this version from this slot
	Reason  string `json:"reason,omitempty"`  // why it failed
}

// Network is how the appliance reaches the network.
type Network struct {
	Name     string   `json:"name"`
	Fixed    bool     `json:"fixed"` // the address is that of network.toml; else DHCP's
	Links    []Link   `json:"links"`
	Gateways []string `json:"gateways"`
	DNS      []string `json:"dns"`
}

// Link is a network interface, or a bridge or VLAN on some.
type Link struct {
	Name      string   `json:"name"`
	Kind      string   `json:"kind"` // wired, bridge, VLAN 20
	MAC       string   `json:"mac,omitempty"`
	Up        bool     `json:"up"`               // with a cable, and somebody at its end
	Bridge    string   `json:"bridge,omitempty"` // that it is a port of
	Addresses []string `json:"addresses"`        // with their prefixes
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
	Do      string `json:"do" enum:"restart,power-off,reset,install,check-channel,schedule"`
	Disk    string `json:"disk,omitempty" doc:"To install on, as list-disks names it"`
	Erase   bool   `json:"erase,omitempty" doc:"Whoever orders knows that reset and install erase"`
	Channel string `json:"channel,omitempty" doc:"Of a schedule: URL of a channel; empty: none"`
	At      string `json:"at,omitempty" doc:"Of a schedule: HH:MM in UTC, each day; empty: when asked"`
}

// What a SystemOrder can ask for.
const (
	Restart      = "restart"
	PowerOff     = "power-off"
	Reset        = "reset"         // to the state of the first start
	Install      = "install"       // copies the system to another disk
	CheckChannel = "check-channel" // updates if the channel has something newer
	Schedule     = "schedule"      // where updates come from, and when
)

// LogQuery says which lines of the appliance's log are wanted.
type LogQuery struct {
	Level string // debug, info, warn or error: these and worse; empty: all
	Unit  string // the program that wrote them, "system" being the appliance itself; empty: all
	Lines int    // the last so many; 0: all that are kept
}

// Values is q as the API takes it.
func (q LogQuery) Values() url.Values {
	v := url.Values{}
	if q.Level != "" {
		v.Set("level", q.Level)
	}
	if q.Unit != "" {
		v.Set("unit", q.Unit)
	}
	if q.Lines > 0 {
		v.Set("lines", strconv.Itoa(q.Lines))
	}
	return v
}

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

// SystemLog gives the last lines that the appliance has written.
func (c *Client) SystemLog(ctx context.Context, q LogQuery) (text string, err error) {
	resp, err := c.open(ctx, http.MethodGet, "log?"+q.Values().Encode(), "", nil)
	if err != nil {
		return "", err
	}
	return string(resp), nil
}

// AddSSHKey lets a key in by SSH and gives who may come in then.
func (c *Client) AddSSHKey(ctx context.Context, line string) (SSH, error) {
	return call[SSH](ctx, c, http.MethodPost, "/system/ssh-keys", SSHLine{Key: line})
}

// RemoveSSHKey lets the key of a fingerprint in no longer.
func (c *Client) RemoveSSHKey(ctx context.Context, fingerprint string) (SSH, error) {
	return call[SSH](ctx, c, http.MethodDelete, "/system/ssh-keys?fingerprint="+url.QueryEscape(fingerprint), nil)
}

// command sends what may take long: ctx alone bounds it.
func (c *Client) command(ctx context.Context, door, kind string, body io.Reader) (u Update, err error) {
	data, err := c.open(ctx, http.MethodPost, door, kind, body)
	if err != nil {
		return u, err
	}
	return u, json.Unmarshal(data, &u)
}

// open asks at a door of the system that takes or gives something else than JSON.
func (c *Client) open(ctx context.Context, method, door, kind string, body io.Reader) ([]byte, error) {
	wrap := func(err error) error { return fmt.Errorf("ask the appliance (%s): %w", door, err) }
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+"/api/v1/system/"+door, body)
	if err != nil {
		return nil, wrap(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	patient := *c.http
	patient.Timeout = 0 // disks and networks may be slow
	resp, err := patient.Do(req)
	var failed *net.OpError
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &failed) && failed.Op == "dial":
		return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, c.base, err)
	case err != nil:
		return nil, wrap(err)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxLog))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, wrap(err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, refusal(resp.StatusCode, data)
	}
	return data, nil
}

// maxLog bounds such an answer, in bytes.
const maxLog = 8 << 20

package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// ErrNoChannel says that there is nothing to look at.
var ErrNoChannel = errors.New("no channel is kept: give its address first (page System, or cistern system schedule)")

// latest is what a channel says of its newest release: latest-MACHINE.json of
// mkimage. It is not signed; the file that it names is.
type latest struct {
	Version string `json:"version"`
	Serial  uint64 `json:"serial"`
	Update  string `json:"update"` // URL, relative to this
}

// maxLatest bounds what is read of it, in bytes.
const maxLatest = 64 << 10

// slowest is how long a release may take to come.
const slowest = 2 * time.Hour

// followChannel looks at the channel each day at the time that was set, until
// ctx is done.
func (b *Box) followChannel(ctx context.Context) {
	for {
		if b.pauseUntilSchedule(ctx) {
			return
		}
		if b.State().TimeFrom == "" {
			b.log.Warn("looked at the channel by a clock that nobody has set")
		}
		if o, err := b.Check(ctx); err != nil {
			b.log.Error("failed to update from the channel", "err", err)
		} else {
			b.log.Info("looked at the channel", "state", o.State, "reason", o.Reason)
		}
	}
}

// pauseUntilSchedule waits for the next time of the day that was set and says
// whether ctx is done. It looks at both clock and schedule each while, since they
// may be set meanwhile.
func (b *Box) pauseUntilSchedule(ctx context.Context) bool {
	for last := wallClock(); ; {
		if pause(ctx, 5*time.Second) {
			return true
		}
		now := wallClock()
		if s := b.updates.get(); s.Channel != "" && s.At != "" && crossed(last, now, s.At) {
			return false
		}
		last = now
	}
}

// wallClock is the time of the day alone: how much of it passed is not what a
// stopwatch would say when the clock was set.
func wallClock() time.Time { return time.Now().UTC().Round(0) }

// crossed says whether a time of the day HH:MM lies between two moments. Those that
// are more than an hour apart do not count: the clock was set.
func crossed(from, to time.Time, at string) bool {
	t, err := time.Parse("15:04", at)
	if err != nil || to.Sub(from) > time.Hour {
		return false
	}
	moment := time.Date(to.Year(), to.Month(), to.Day(), t.Hour(), t.Minute(), 0, 0, time.UTC)
	return from.Before(moment) && !to.Before(moment)
}

// Check looks at the channel, and takes its release if that is newer than what
// runs and has not failed here before. "Nothing newer" is an Outcome whose State
// is "current", with the reason.
func (b *Box) Check(ctx context.Context) (Outcome, error) {
	channel := b.updates.get().Channel
	if channel == "" {
		return Outcome{}, ErrNoChannel
	}
	ctx, cancel := context.WithTimeout(ctx, slowest)
	defer cancel()
	resp, err := fetch(ctx, channel)
	if err != nil {
		return Outcome{}, fmt.Errorf("look at the channel: %w", err)
	}
	defer resp.Body.Close()
	var newest latest
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxLatest)).Decode(&newest); err != nil {
		return Outcome{}, fmt.Errorf("look at the channel: %w", err)
	}
	if why := b.unwanted(newest.Version, newest.Serial); why != "" {
		return Outcome{Version: newest.Version, Serial: newest.Serial, State: "current", Reason: why, Time: time.Now()}, nil
	}
	where, err := resp.Request.URL.Parse(newest.Update)
	if err != nil || where.Scheme != "http" && where.Scheme != "https" {
		return Outcome{}, fmt.Errorf("look at the channel: it names %q, which is no URL", newest.Update)
	}
	file, err := fetch(ctx, where.String())
	if err != nil {
		return Outcome{}, fmt.Errorf("fetch the update: %w", err)
	}
	defer file.Body.Close()
	return b.Update(ctx, file.Body)
}

// unwanted says why a release is not to be taken by itself; empty: it is.
func (b *Box) unwanted(version string, serial uint64) string {
	last := b.State().Last
	switch {
	case serial <= b.release.Serial:
		return fmt.Sprintf("%s runs, and %s is not newer", b.release.Version, version)
	case last != nil && last.State == "failed" && last.Serial == serial:
		return fmt.Sprintf("%s did not work here before: %s", version, last.Reason)
	}
	return ""
}

func fetch(ctx context.Context, address string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s answered %s", req.URL.Redacted(), resp.Status), resp.Body.Close())
	}
	return resp, nil
}

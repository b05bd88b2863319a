package appliance

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/pelletier/go-toml/v2"
)

// ErrNoSchedule says that there is a time but nothing to look at.
var ErrNoSchedule = errors.New("a time needs a channel to look at: give its URL")

// following is where updates come from, and when. It is safe for concurrent use.
type following struct {
	// mu guards what follows.
	mu  sync.Mutex
	now updateSettings
}

func (f *following) get() updateSettings {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *following) set(s updateSettings) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = s
}

// Schedule says which channel is looked at, and when each day (HH:MM in UTC);
// both are kept in update.toml and hold at once. Without a time it is looked at
// only when somebody asks; without a channel updates come by hand alone.
func (b *Box) Schedule(channel, at string) error {
	s := updateSettings{Channel: channel, At: at}
	if err := s.Validate(); err != nil {
		return err
	}
	if channel == "" && at != "" {
		return ErrNoSchedule
	}
	text, err := toml.Marshal(s)
	if err == nil {
		err = writeFile(filepath.Join(b.state, filepath.Base(updateFile)), text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("keep the schedule: %w", err)
	}
	b.updates.set(s)
	b.log.Info("set the schedule of updates", "channel", channel, "at", at)
	return nil
}

//go:build !linux

package qualify

import (
	"context"
	"errors"
	"time"
)

// errLinux is said on machines that cannot be a box.
var errLinux = errors.New("hardware is measured on Linux alone")

func (q *Qualifier) steps() ([]step, error) { return nil, errLinux }

// SendConfig says how test packets are sent; see the Linux version.
type SendConfig struct {
	Interface string
	Rate      int64
	For       time.Duration
	TTL       int
}

// Send is for Linux.
func Send(context.Context, SendConfig) (uint64, error) { return 0, errLinux }

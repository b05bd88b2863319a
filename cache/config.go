package cache

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Config says where the store lives, how large it may grow and who may have how
// much of it.
type Config struct {
	// Dir is the data directory: the index and the first volume. It is made if
	// it is not there.
	Dir string
	// Volumes are further directories for bodies, each on a disk of its own. If
	// one of the disks is lost, what was on it is forgotten and the rest goes on.
	Volumes []string
	// Spare is a directory for an empty store that stands in while the disk of
	// Dir is full or read-only; what is there and on the Volumes is left alone
	// until a start finds it well. Empty: Open fails then.
	Spare string
	// MaxBytes bounds the bytes of all objects; 0 means 50 GB. It is never more
	// than the disks have.
	MaxBytes int64
	// MinFree is how many bytes of each volume stay free; 0 means a sixteenth of
	// the volume, between 24 and 256 MiB. Where the index is it is never less
	// than the index needs, 40 to 190 MiB.
	MinFree int64
	// SmallBytes bounds the pool of objects up to 64 KiB, a part of MaxBytes; 0
	// means a sixteenth of MaxBytes.
	SmallBytes int64
	// Quotas bound services. An object belongs to the first that matches the
	// name it came by.
	Quotas []Quota
	// RAM bounds what is kept in memory of small bodies and of the index; 0
	// means 32 MiB, 4 MiB with Small.
	RAM int64
	// ScrubPeriod is how long the scrub takes to check every body once; 0 means
	// 14 days, negative that there is none.
	ScrubPeriod time.Duration
	// Small keeps the index light, for agents on machines of 128 MB.
	Small bool
}

// Quota bounds the objects of one service.
type Quota struct {
	// Name of the service, such as "steam".
	Name string
	// Match are patterns of names; see [Match].
	Match []string
	// MaxBytes of all objects of the service.
	MaxBytes int64
}

// Sizes of the store, in bytes.
const (
	// SmallObject is the size up to which objects share segments.
	SmallObject = 64 << 10

	defaultMaxBytes = 50e9
	defaultRAM      = 32 << 20
	smallRAM        = 4 << 20
	maxPending      = 32 << 20 // of index changes that the disk has not taken
	maxServices     = 255
)

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	if c.Dir == "" {
		faults = append(faults, errors.New("store.dir: no directory named"))
	}
	for i, dir := range c.Volumes {
		if dir == "" {
			faults = append(faults, fmt.Errorf("store.volumes[%d]: no directory named", i))
		} else if dir == c.Dir || slices.Contains(c.Volumes[:i], dir) {
			faults = append(faults, fmt.Errorf("store.volumes[%d]: %s is named twice", i, dir))
		}
	}
	for key, n := range map[string]int64{"max_bytes": c.MaxBytes, "min_free": c.MinFree, "small_bytes": c.SmallBytes, "ram": c.RAM} {
		if n < 0 {
			faults = append(faults, fmt.Errorf("store.%s: %d is negative", key, n))
		}
	}
	if len(c.Quotas) > maxServices-1 {
		faults = append(faults, fmt.Errorf("store.quota: %d services; %d is the most", len(c.Quotas), maxServices-1))
	}
	names := map[string]bool{}
	for i, q := range c.Quotas {
		if q.Name == "" || names[q.Name] {
			faults = append(faults, fmt.Errorf("store.quota[%d].name: %q is empty or used twice", i, q.Name))
		}
		names[q.Name] = true
		if len(q.Match) == 0 {
			faults = append(faults, fmt.Errorf("store.quota[%d].match: nothing belongs to %q", i, q.Name))
		}
		for _, pattern := range q.Match {
			if err := CheckPattern(pattern); err != nil {
				faults = append(faults, fmt.Errorf("store.quota[%d].match: %w", i, err))
			}
		}
		if q.MaxBytes <= 0 {
			faults = append(faults, fmt.Errorf("store.quota[%d].max_bytes: %d is not a positive number", i, q.MaxBytes))
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(faults...)
}

// filled gives the configuration with the defaults in place.
func (c Config) filled() Config {
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	if c.RAM == 0 {
		c.RAM = defaultRAM
		if c.Small {
			c.RAM = smallRAM
		}
	}
	if c.ScrubPeriod == 0 {
		c.ScrubPeriod = 14 * 24 * time.Hour
	}
	return c
}

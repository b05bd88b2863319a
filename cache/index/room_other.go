//go:build !linux

package index

import (
	"math"
	"os"
)

// lockIsOurs tells that lockFile keeps other processes out: here Badger does.
const lockIsOurs = false

func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}

// space is not known here: the probe alone has to find a full disk.
func space(string) (free, total int64, err error) { return math.MaxInt64, 0, nil }

// makeReserve does nothing: a reserve helps only where space can be measured.
func makeReserve(string, int64) error { return nil }

func syncData(f *os.File) error { return f.Sync() }

func classify(err error) error { return err }

// takeRoom does nothing, for the same reason.
func takeRoom(string, int64) error { return nil }

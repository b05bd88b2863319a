package cache

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
)

// claim lies on each volume. It says whose the volume is, and which of the
// store's volumes were on file systems of their own: where one of those is an
// empty directory today, its disk is not mounted, and bodies must not go to the
// disk of the system instead.
type claim struct {
	Index string   `json:"index"` // name of the index that knows the bodies
	Apart []string `json:"apart,omitempty"`
}

const claimFile = "claim.json"

// readClaim reads a volume's claim; what cannot be read says nothing.
func readClaim(dir string) (c claim) {
	text, err := os.ReadFile(filepath.Join(dir, claimFile))
	if err != nil || json.Unmarshal(text, &c) != nil {
		return claim{}
	}
	return c
}

// apartBefore gathers from all volumes which directories were on file systems of
// their own.
func apartBefore(dirs []string) map[string]bool {
	apart := map[string]bool{}
	for _, dir := range dirs {
		for _, each := range readClaim(dir).Apart {
			apart[each] = true
		}
	}
	return apart
}

// claimVolumes says on each volume that it belongs to this index.
func (s *Store) claimVolumes() {
	mine := claim{Index: s.name}
	for _, v := range s.volumes {
		if v.apart {
			mine.Apart = append(mine.Apart, v.dir)
		}
	}
	for _, v := range s.volumes {
		if v.isAlien() || reflect.DeepEqual(readClaim(v.dir), mine) {
			continue
		}
		if err := replaceFile(filepath.Join(v.dir, claimFile), append(encode(mine), '\n')); err != nil {
			v.suspect(err)
			s.log.Warn("failed to claim a volume", "volume", v.dir, "err", err)
		}
	}
}

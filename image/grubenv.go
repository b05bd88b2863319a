package image

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// GrubEnv is the boot loader's environment block: a file of 1,024 bytes that
// GRUB rewrites where it lies, so its size never changes.
//
// Boot choices are three variables: slot is the one that proved itself, trial
// one that has still to, left how many more starts it gets.
type GrubEnv map[string]string

// GrubEnvSize of the file, in bytes.
const GrubEnvSize = 1024

const grubEnvHead = "# GRUB Environment Block\n"

// ErrGrubEnv says that an environment block does not hold together.
var ErrGrubEnv = errors.New("no valid boot environment")

// ParseGrubEnv reads a block.
func ParseGrubEnv(block []byte) (GrubEnv, error) {
	text, ok := strings.CutPrefix(string(block), grubEnvHead)
	if len(block) != GrubEnvSize || !ok {
		return nil, ErrGrubEnv
	}
	env := GrubEnv{}
	for line := range strings.SplitSeq(strings.TrimRight(text, "#"), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || !plain(key) || !plain(value) {
			return nil, fmt.Errorf("%w: line %q", ErrGrubEnv, line)
		}
		env[key] = value
	}
	return env, nil
}

// Encode writes the block, the same for the same values. Keys and values are
// letters, digits, dots, dashes and underscores.
func (e GrubEnv) Encode() ([]byte, error) {
	var b strings.Builder
	b.WriteString(grubEnvHead)
	for _, key := range slices.Sorted(maps.Keys(e)) {
		if key == "" || !plain(key) || !plain(e[key]) {
			return nil, fmt.Errorf("%w: %q=%q", ErrGrubEnv, key, e[key])
		}
		fmt.Fprintf(&b, "%s=%s\n", key, e[key])
	}
	if b.Len() > GrubEnvSize {
		return nil, fmt.Errorf("%w: %d bytes are too many", ErrGrubEnv, b.Len())
	}
	return []byte(b.String() + strings.Repeat("#", GrubEnvSize-b.Len())), nil
}

func plain(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '.' && r != '-' && r != '_'
	}) < 0
}

package content

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Hash is a SHA-256 digest.
type Hash [32]byte

// String is the digest in lower-case hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText gives the digest in hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return fmt.Errorf("hash %q: want %d hexadecimal digits, got %d characters", clip(string(text)), 2*len(h), len(text))
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return fmt.Errorf("hash %q: %w", clip(string(text)), err)
	}
	return nil
}

// ID names a file by its bytes: the pieces root of BEP 52 (the root of the
// SHA-256 Merkle tree over leaves of 16 KiB) and the size, which the root alone
// does not fix. The empty file has size 0 and a root of 32 zero bytes.
type ID struct {
	Root Hash
	Size int64
}

// IsZero reports whether no identity is known. The identity of the empty file
// is also the zero ID: it has nothing to prove.
func (id ID) IsZero() bool { return id == ID{} }

// String is the root in hexadecimal, a hyphen and the size in decimal.
func (id ID) String() string { return id.Root.String() + "-" + strconv.FormatInt(id.Size, 10) }

// MarshalText gives String.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what String writes.
func (id *ID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseID(string(text))
	return err
}

// ParseID reads the text form of an identity. The error names the part that was
// wrong.
func ParseID(s string) (ID, error) {
	root, size, ok := strings.Cut(s, "-")
	if !ok {
		return ID{}, fmt.Errorf("object identity %q: want <64 hexadecimal digits>-<size>", clip(s))
	}
	var id ID
	if err := id.Root.UnmarshalText([]byte(strings.ToLower(root))); err != nil {
		return ID{}, fmt.Errorf("object identity: %w", err)
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != size {
		return ID{}, fmt.Errorf("object identity: size %q is not a number of bytes", clip(size))
	}
	id.Size = n
	if n == 0 && id.Root != (Hash{}) {
		return ID{}, errors.New("object identity: an empty object has a root of zeros")
	}
	return id, nil
}

// clip keeps foreign text in an error message short.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

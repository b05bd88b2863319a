package announce

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Fingerprint names a box by its key: the SHA-256 digest of the Ed25519 public
// key. It is what an agent pins.
type Fingerprint [sha256.Size]byte

// alphabet is RFC 4648 base32, in lower case as people type it.
var alphabet = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// FingerprintOf gives the fingerprint of a public key.
func FingerprintOf(pub ed25519.PublicKey) Fingerprint { return sha256.Sum256(pub) }

// String is the fingerprint in base32, 52 characters.
func (f Fingerprint) String() string { return alphabet.EncodeToString(f[:]) }

// MarshalText gives String.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what String writes.
func (f *Fingerprint) UnmarshalText(text []byte) (err error) {
	*f, err = ParseFingerprint(string(text))
	return err
}

// ParseFingerprint reads a fingerprint. Upper case, spaces, colons and hyphens
// are forgiven.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	const chars = 52
	if len(s) > 4*chars {
		return f, fmt.Errorf("key fingerprint: %d characters, want %d", len(s), chars)
	}
	clean := strings.ToLower(strings.NewReplacer(" ", "", ":", "", "-", "", "\t", "", "\n", "").Replace(s))
	if len(clean) != chars {
		return f, fmt.Errorf("key fingerprint %q: %d characters, want %d of base32", s, len(clean), chars)
	}
	raw, err := alphabet.DecodeString(clean)
	if err != nil {
		return f, fmt.Errorf("key fingerprint %q: not base32: %w", s, err)
	}
	copy(f[:], raw)
	return f, nil
}

// Key is the box's Ed25519 key. It signs notices and NORM sessions, and it is
// the identity behind the TLS channel that agents enrol over. It is safe for
// concurrent use.
type Key struct{ private ed25519.PrivateKey }

// pemType is how PKCS #8 keys are labelled (RFC 7468 §10).
const pemType = "PRIVATE KEY"

// NewKey makes a key that is kept nowhere.
func NewKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make box key: %w", err)
	}
	return &Key{private}, nil
}

// LoadOrCreate reads the key from the file at path, or makes one and keeps it
// there, readable by the owner alone. A damaged file is an error: a box must
// not change its key without anybody asking.
func LoadOrCreate(path string) (*Key, error) {
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		return parseKey(path, text)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read box key: %w", err)
	}
	k, err := NewKey()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("encode box key: %w", err)
	}
	if err := WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})); err != nil {
		return nil, fmt.Errorf("keep box key: %w", err)
	}
	return k, nil
}

func parseKey(path string, text []byte) (*Key, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("box key %s: no PEM block %q", path, pemType)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("box key %s: %w", path, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("box key %s: it is a %T, want Ed25519", path, key)
	}
	return &Key{private}, nil
}

// WriteFile replaces the file at path with data, readable by the owner alone.
// After a crash the file is the old one or the new one, whole.
func WriteFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err2 := os.Open(dir)
	if err2 != nil {
		return nil // a system that cannot open directories syncs renames itself
	}
	defer d.Close()
	_ = d.Sync() // not every file system offers it; the rename stands
	return nil
}

// Public is the public half.
func (k *Key) Public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// Fingerprint names the key.
func (k *Key) Fingerprint() Fingerprint { return FingerprintOf(k.Public()) }

// Sign signs a message of the given purpose. A signature for one purpose is
// worthless for another.
func (k *Key) Sign(purpose string, msg []byte) []byte {
	return ed25519.Sign(k.private, scoped(purpose, msg))
}

// Verify reports whether sig is the signature of msg for that purpose by the
// holder of pub.
func Verify(pub ed25519.PublicKey, purpose string, msg, sig []byte) bool {
	return len(pub) == ed25519.PublicKeySize && ed25519.Verify(pub, scoped(purpose, msg), sig)
}

// scoped puts the purpose before the message; the zero byte ends it.
func scoped(purpose string, msg []byte) []byte {
	b := make([]byte, 0, len(purpose)+1+len(msg))
	return append(append(append(b, purpose...), 0), msg...)
}

// Certificate is a self-signed certificate for the key. Nothing in it matters
// but the key: agents pin that and look at nothing else. It is made anew each
// time and outlives any box.
func (k *Key) Certificate() (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "cistern " + k.Fingerprint().String()},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 §4.1.2.5: no end
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k.private)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate of the box key: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k.private}, nil
}

// ErrWrongKey says that the other end of a TLS channel holds another key than
// the one pinned.
var ErrWrongKey = errors.New("the box has another key than the one pinned")

// PinnedTLS is a client configuration that trusts the key with the given
// fingerprint and nothing else: no name, no date, no authority.
func PinnedTLS(pin Fingerprint) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection takes its place
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return fmt.Errorf("box sent no certificate: %w", ErrWrongKey)
			}
			pub, ok := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
			if !ok {
				return fmt.Errorf("box has a %T: %w", state.PeerCertificates[0].PublicKey, ErrWrongKey)
			}
			if got := FingerprintOf(pub); subtle.ConstantTimeCompare(got[:], pin[:]) != 1 {
				return fmt.Errorf("box has key %s, pinned is %s: %w", got, pin, ErrWrongKey)
			}
			return nil
		},
	}
}

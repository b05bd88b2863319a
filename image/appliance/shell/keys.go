package shell

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Key is a line of authorized_keys.
type Key struct {
	Fingerprint string `json:"fingerprint"` // SHA256:…
	Kind        string `json:"kind"`        // ssh-ed25519, ecdsa-sha2-…, ssh-rsa
	Comment     string `json:"comment,omitempty"`
}

// ErrKey says that a line lets nobody in.
var ErrKey = errors.New("this is no public key that the box takes")

// Bounds of authorized_keys and of an RSA key.
const (
	MaxKeys  = 64
	maxLine  = 16 << 10
	leastRSA = 2048
	mostRSA  = 8192
)

// ParseKeys reads authorized_keys: ed25519, ecdsa and rsa of 2048 bits and more.
// The error tells of every line that is none; the other keys hold.
func ParseKeys(text []byte) (keys []Key, err error) {
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		k, fault := ParseKey(line)
		if fault == nil && len(keys) == MaxKeys {
			fault = fmt.Errorf("%w: %d are the most", ErrKey, MaxKeys)
		}
		if fault != nil {
			err = errors.Join(err, fmt.Errorf("line %d: %w", number, fault))
			continue
		}
		keys = append(keys, k)
	}
	return keys, err
}

// ParseKey reads one line. Options before the key are refused: the box would not
// keep what they promise.
func ParseKey(line []byte) (Key, error) {
	if len(line) > maxLine || bytes.ContainsAny(line, "\r\n\x00") {
		return Key{}, fmt.Errorf("%w: it is more than one line", ErrKey)
	}
	if bytes.Contains(line, []byte("PRIVATE KEY")) {
		return Key{}, fmt.Errorf("%w: it is a private key; give the .pub file, and keep this one to yourself", ErrKey)
	}
	key, comment, options, _, err := ssh.ParseAuthorizedKey(line)
	if err != nil {
		return Key{}, fmt.Errorf("%w: want a line such as \"ssh-ed25519 AAAA… name\"", ErrKey)
	}
	if len(options) > 0 {
		return Key{}, fmt.Errorf("%w: it has options, which the box does not keep", ErrKey)
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
	case ssh.KeyAlgoRSA:
		wrapped, ok := key.(ssh.CryptoPublicKey)
		if !ok {
			return Key{}, ErrKey
		}
		plain, ok := wrapped.CryptoPublicKey().(*rsa.PublicKey)
		if !ok || plain.N.BitLen() < leastRSA || plain.N.BitLen() > mostRSA {
			return Key{}, fmt.Errorf("%w: an RSA key has %d to %d bits", ErrKey, leastRSA, mostRSA)
		}
	default:
		return Key{}, fmt.Errorf("%w: %s; make one with ssh-keygen -t ed25519", ErrKey, key.Type())
	}
	return Key{Fingerprint: ssh.FingerprintSHA256(key), Kind: key.Type(), Comment: comment}, nil
}

// NewHostKey makes a key for a box, as PEM.
func NewHostKey() ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(block), nil
}

// Fingerprint is that of a host key.
func Fingerprint(hostKey []byte) (string, error) {
	key, err := ssh.ParsePrivateKey(hostKey)
	if err != nil {
		return "", err
	}
	return ssh.FingerprintSHA256(key.PublicKey()), nil
}

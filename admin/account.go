package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"

	"github.com/cistern-edge/cistern/admin/client"
)

// Files in the data directory, each with mode 0600.
const (
	passwordFile = "admin.password" // argon2id hash
	codeFile     = "admin.setup"    // what the first visitor has to know
)

// Bounds of a password, in characters.
const (
	minPassword = 10
	maxPassword = 256
)

// hashCost is what a guess costs: OWASP's advice for argon2id, small enough for
// a home gateway.
func hashCost() argon2id.Params {
	return argon2id.Params{Memory: 19 << 10, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}
}

// What setting a password is refused for.
var (
	errWrongCode   = errors.New("that is not the setup code")
	errPasswordSet = errors.New("a password is set already")
	errPassword    = fmt.Errorf("a password has %d to %d characters", minPassword, maxPassword)
)

// account is the one account: its token, its password, and before there is a
// password the setup code.
type account struct {
	dir  string
	cost argon2id.Params

	// hashing is held while a password is hashed: one at a time bounds memory.
	hashing sync.Mutex

	// mu guards what follows.
	mu    sync.Mutex
	token [32]byte // SHA-256 of the token; zero before open
	hash  string
	code  string
}

// open reads the account's files and makes those that are missing.
func (a *account) open() error {
	token, err := a.secret(client.TokenFile, func() string { return rand.Text() + rand.Text() })
	if err != nil {
		return err
	}
	hash, err := os.ReadFile(filepath.Join(a.dir, passwordFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var code string
	if len(hash) == 0 {
		if code, err = a.secret(codeFile, setupCode); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token, a.hash, a.code = sha256.Sum256([]byte(token)), strings.TrimSpace(string(hash)), code
	return nil
}

// secret reads a file of one line, or makes it. Whatever mode it had, it is
// readable by its owner only afterwards.
func (a *account) secret(name string, generate func() string) (string, error) {
	path := filepath.Join(a.dir, name)
	data, err := os.ReadFile(path)
	if text := strings.TrimSpace(string(data)); err == nil && text != "" {
		return text, os.Chmod(path, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	text := generate()
	return text, writeSecret(path, text)
}

// writeSecret puts a line into a file, whole or not at all.
func writeSecret(path, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".secret-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(text + "\n")
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// setupCode is 40 bits that a person types once: "K7QD-3XAB".
func setupCode() string {
	var b [5]byte
	rand.Read(b[:])
	s := base32.StdEncoding.EncodeToString(b[:])
	return s[:4] + "-" + s[4:]
}

// setupCode is what the first visitor has to know; "" once a password is set.
func (a *account) setupCode() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.code
}

// ready reports whether a password is set.
func (a *account) ready() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hash != ""
}

// isToken reports whether a token is the admin token.
func (a *account) isToken(token string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	sum := sha256.Sum256([]byte(token))
	return a.token != [32]byte{} && subtle.ConstantTimeCompare(sum[:], a.token[:]) == 1
}

// isPassword reports whether a password is the one that was set.
func (a *account) isPassword(password string) (bool, error) {
	if len(password) > 4*maxPassword {
		return false, nil
	}
	a.mu.Lock()
	hash := a.hash
	a.mu.Unlock()
	if hash == "" {
		return false, nil
	}
	a.hashing.Lock()
	defer a.hashing.Unlock()
	match, err := argon2id.ComparePasswordAndHash(password, hash)
	if err != nil {
		return false, fmt.Errorf("check password: %s: %w", passwordFile, err)
	}
	return match, nil
}

// setPassword sets the first password for whoever knows the setup code.
func (a *account) setPassword(code, password string) error {
	if n := utf8.RuneCountInString(password); n < minPassword || n > maxPassword {
		return errPassword
	}
	a.hashing.Lock()
	defer a.hashing.Unlock()
	switch want := a.setupCode(); {
	case want == "":
		return errPasswordSet
	case subtle.ConstantTimeCompare([]byte(plainCode(code)), []byte(plainCode(want))) != 1:
		return errWrongCode
	}
	hash, err := argon2id.CreateHash(password, &a.cost)
	if err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	if err := writeSecret(filepath.Join(a.dir, passwordFile), hash); err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	a.mu.Lock()
	a.hash, a.code = hash, ""
	a.mu.Unlock()
	if err := os.Remove(filepath.Join(a.dir, codeFile)); err != nil {
		return fmt.Errorf("set password: %w", err)
	}
	return nil
}

// plainCode forgives how a code is typed: case, hyphen, spaces.
func plainCode(s string) string {
	return strings.NewReplacer("-", "", " ", "").Replace(strings.ToUpper(s))
}

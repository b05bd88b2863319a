package appliance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/cistern-edge/cistern/image/appliance/shell"
)

// Files of SSH: who may come in, and the key of the box.
const (
	loginKeysFile = stateDir + "/authorized_keys"
	hostKeyFile   = "ssh_host_ed25519_key"
)

// shellID is the user and the group that SSH runs as: it may not even read what
// is the daemon's.
const shellID = 101

// ShellName is what this program is called when it is the SSH server.
const ShellName = "cistern-ssh"

// SSH is who may come in by SSH.
type SSH struct {
	On      bool        `json:"on"` // somebody may
	HostKey string      `json:"host_key,omitempty"`
	Keys    []shell.Key `json:"keys"`
}

// ErrNoKey says that a fingerprint is that of no key here.
var ErrNoKey = errors.New("no key has this fingerprint")

// SSH is a snapshot.
func (b *Box) SSH() SSH {
	keys, _ := shell.ParseKeys(b.loginKeys())
	b.mu.Lock()
	defer b.mu.Unlock()
	return SSH{On: len(keys) > 0, HostKey: b.hostKey, Keys: append([]shell.Key{}, keys...)}
}

func (b *Box) keysFile() string { return filepath.Join(b.state, filepath.Base(loginKeysFile)) }

// loginKeys is what authorized_keys says; nothing if there is none.
func (b *Box) loginKeys() []byte {
	text, err := os.ReadFile(b.keysFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Error("failed to read who may come in by SSH", "err", err)
	}
	return text
}

// AddKey lets whoever has a key come in by SSH: a line of authorized_keys.
func (b *Box) AddKey(line string) error {
	line = strings.TrimSpace(line)
	added, err := shell.ParseKey([]byte(line))
	if err != nil {
		return err
	}
	b.editing.Lock()
	defer b.editing.Unlock()
	text := b.loginKeys()
	keys, _ := shell.ParseKeys(text)
	for _, k := range keys {
		if k.Fingerprint == added.Fingerprint {
			return fmt.Errorf("the key %s is there already", k.Fingerprint)
		}
	}
	if len(keys) >= shell.MaxKeys {
		return fmt.Errorf("%d keys are the most: remove one first", shell.MaxKeys)
	}
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
		text = append(text, '\n')
	}
	if err := writeFile(b.keysFile(), append(text, line+"\n"...), 0o644); err != nil {
		return fmt.Errorf("keep the key: %w", err)
	}
	b.log.Info("let a key in by SSH", "key", added.Fingerprint)
	return nil
}

// RemoveKey takes a key away: the next login with it is refused. The file stays,
// empty, so that the next start does not take the first one again.
func (b *Box) RemoveKey(fingerprint string) error {
	b.editing.Lock()
	defer b.editing.Unlock()
	var rest []byte
	found := false
	for line := range bytes.Lines(b.loginKeys()) {
		k, err := shell.ParseKey(bytes.TrimSpace(line))
		if err == nil && k.Fingerprint == fingerprint {
			found = true
			continue
		}
		rest = append(rest, line...)
	}
	if !found {
		return fmt.Errorf("%w: %q", ErrNoKey, fingerprint)
	}
	if err := writeFile(b.keysFile(), rest, 0o644); err != nil {
		return fmt.Errorf("take the key away: %w", err)
	}
	b.log.Info("took a key of SSH away", "key", fingerprint)
	return nil
}

// ssh answers SSH as long as there are keys, until ctx is done. It does so in a
// process of its own: what strangers send is nothing for PID 1 to read.
func (b *Box) ssh(ctx context.Context) {
	host, err := b.ownHostKey()
	if err != nil {
		b.log.Error("failed to make the host key of SSH", "err", err)
		return
	}
	if _, err := shell.ParseKeys(b.loginKeys()); err != nil {
		b.log.Warn("left out keys of SSH", "err", err)
	}
	for rest := firstPause; ; {
		token := b.token()
		if b.SSH().On && token != "" {
			if err := b.runShell(ctx, host, token); err != nil && ctx.Err() == nil {
				b.log.Error("ssh ended", "err", err, "again_in", rest)
				rest = min(2*rest, lastPause)
			} else {
				rest = firstPause
			}
		}
		if pause(ctx, rest) {
			return
		}
	}
}

// ownHostKey gives the key of the box, which its first start makes.
func (b *Box) ownHostKey() ([]byte, error) {
	file := filepath.Join(b.state, hostKeyFile)
	key, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = shell.NewHostKey(); err == nil {
			err = writeFile(file, key, 0o600)
		}
	}
	if err != nil {
		return nil, err
	}
	mark, err := shell.Fingerprint(key)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.hostKey = mark
	b.mu.Unlock()
	return key, nil
}

// token is the admin token; empty as long as the daemon has made none.
func (b *Box) token() string {
	text, err := os.ReadFile(storeDir + "/admin.token")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// runShell runs the SSH server until ctx is done, there is no key any more, or
// the token is another one.
func (b *Box) runShell(ctx context.Context, host []byte, token string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{Port: 22})
	if err != nil {
		return err
	}
	door, err := listener.File()
	if err = errors.Join(err, listener.Close()); err != nil {
		return err
	}
	defer door.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	said := b.ring.Unit("ssh")
	cmd := exec.CommandContext(ctx, self)
	cmd.Args = []string{ShellName}
	cmd.Dir = "/tmp"
	cmd.Env = []string{"HOME=/tmp", "CISTERN_TOKEN=" + token, "CISTERN_BOX=" + panelAddress(configFile), "CISTERN_KEYS=" + b.keysFile()}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(host), said, said
	cmd.ExtraFiles = []*os.File{door}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: shellID, Gid: shellID}, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 15 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	b.log.Info("opened ssh", "host_key", b.SSH().HostKey)
	b.setOpen(true)
	defer b.setOpen(false)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for !pause(ctx, firstPause) {
			if !b.SSH().On || b.token() != token {
				cancel()
			}
		}
	}()
	err = cmd.Wait()
	closed := ctx.Err() != nil
	cancel()
	<-stopped
	if closed {
		b.log.Info("closed ssh")
		return nil
	}
	return err
}

func (b *Box) setOpen(open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sshOpen = open
}

// panelAddress is where the daemon of this box answers the API.
func panelAddress(config string) string {
	var said struct {
		Admin struct {
			Listen string `toml:"listen"`
		} `toml:"admin"`
	}
	text, err := os.ReadFile(config)
	if err == nil {
		err = toml.Unmarshal(text, &said)
	}
	host, port, serr := net.SplitHostPort(said.Admin.Listen)
	if errors.Join(err, serr) != nil {
		return "http://127.0.0.1:8080" // as the daemon has it that is told nothing
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// Shell is what this program does as [ShellName]: it answers SSH on the socket
// that it was started with.
func Shell(log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	host, err := io.ReadAll(io.LimitReader(os.Stdin, 16<<10))
	if err != nil {
		return err
	}
	door := os.NewFile(3, "listener")
	listener, err := net.FileListener(door)
	if err = errors.Join(err, door.Close()); err != nil {
		return err
	}
	server, err := shell.New(shell.Config{
		Keys: os.Getenv("CISTERN_KEYS"), HostKey: host, Dir: "/tmp",
		Program: []string{"/bin/cistern", "--box=" + os.Getenv("CISTERN_BOX")},
		Env:     []string{"HOME=/tmp", "CISTERN_TOKEN=" + os.Getenv("CISTERN_TOKEN")},
	}, log)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	return server.Serve(ctx, listener)
}

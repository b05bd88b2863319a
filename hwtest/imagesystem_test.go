//go:build soak

package hwtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/image"
)

// TestImageSystem looks after an emulated box as a person does who has a key and
// no shell: by OpenSSH, by the program cistern and by the API.
func TestImageSystem(t *testing.T) {
	tools(t, "ssh", "ssh-keygen", "sftp")
	m := newMachine(t, pc{}, newFoundry(t).base(t), diskSize)
	r := &remote{machine: m, dir: t.TempDir()}
	ann, ben := r.key(t, "ann"), r.key(t, "ben")
	m.setting(t, "authorized_keys", "# who looks after it\n"+ann.public)
	m.powerOn(t)
	m.awaitStart(t)
	r.port = m.forward(t, 22)
	waitLong(t, "SSH", r.isOpen)

	r.commands(t, ann)
	r.refusals(t, ann, ben)
	r.logins(t, ann, ben)
	r.schedule(t)

	before, err := m.box.System(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.cistern(t, "The box restarts.", "system", "restart")
	s := m.await(t, "the restart", func(s client.System) bool { return s.Started.After(before.Started.Add(10*time.Second)) && working(s) })
	if s.Boots != 2 || s.At != "03:30" || len(s.SSH.Keys) != 1 || s.SSH.Keys[0].Comment != "ben" {
		t.Errorf("after the restart it is %+v", s)
	}
	waitLong(t, "SSH after the restart", r.isOpen)
	r.says(t, ben, "1.0 in slot a, start 2: works", "system", "status")
	r.refuses(t, ann, "Permission denied", "status") // CONFIG still has the key

	r.cistern(t, "The box turns itself off.", "system", "power-off", "--yes")
	waitLong(t, "the end of the machine", func() bool {
		c, err := net.Dial("unix", m.monitor())
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	at := fmt.Sprintf("%s?offset=%d", m.disk, image.Partitions()[image.PartData-1].Start)
	features, err := exec.Command("debugfs", "-R", "features", at).CombinedOutput()
	clean := err == nil && strings.Contains(string(features), "has_journal") && !strings.Contains(string(features), "needs_recovery")
	if !clean {
		t.Errorf("the data were not let go of (package e2fsprogs): %v %s", err, features)
	}
	t.Logf("figure: image, power off by the API ends the machine, its data clean: %s", verdict(clean))
}

// commands of cistern work, by line and with what comes on standard input.
func (r *remote) commands(t *testing.T, by login) {
	t.Helper()
	began := time.Now()
	r.says(t, by, "1.0 in slot a, start 1: works", "system", "status")
	t.Logf("figure: image, a command by SSH under emulation, login and all: %.1f s (measured)", time.Since(began).Seconds())
	out, _, code := r.ssh(t, by, nil, "", "status", "--json")
	var all struct{ Status client.Status }
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 || all.Status.Version == "" {
		t.Errorf("status: %d, %v: %q", code, err, out)
	}
	r.says(t, by, "the box's own key: SHA256:", "system", "ssh-key")
	r.says(t, by, "(the system runs from it)", "system", "disks")
	r.says(t, by, "logged in", "logs", "--unit", "ssh")
	if _, said, code := r.ssh(t, by, nil, "not an update", "update", "-"); code == 0 || code == 255 || said == "" {
		t.Errorf("an update that is none: %d, %q", code, said)
	}
	if _, said, code := r.ssh(t, by, nil, "reboot\nexit\n"); code != 255 || !strings.Contains(said, `no command "reboot"`) {
		t.Errorf("lines: %d, %q", code, said)
	}
}

// refusals: whatever is no command of cistern, or comes from somebody else.
func (r *remote) refusals(t *testing.T, in, out login) {
	t.Helper()
	for line, says := range map[string]string{
		"cat /etc/passwd": "no command", "sh -c id": "no command", "reboot; status": "no command", "doctor": "no command",
		"status --box=http://10.0.2.2": "--box", "status --token x": "--token", "hwtest --here --erase vda --yes": "cannot be done by SSH",
	} {
		r.refuses(t, in, says, strings.Fields(line)...)
	}
	r.refuses(t, out, "Permission denied", "status")
	r.refuses(t, login{user: "root", file: in.file}, "Permission denied", "status")
	_, said, code := r.ssh(t, in, []string{"-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:9"}, "")
	if code != 255 || !strings.Contains(said, "forward") {
		t.Errorf("a forward to here: %d, %q", code, said)
	}
	if got := r.forwarded(t, in); got != "" {
		t.Errorf("a forward into the box gave %q", got)
	}
	sftp := exec.CommandContext(t.Context(), "sftp", append(r.options(in), "-b", "-", "cistern@127.0.0.1")...)
	sftp.Stdin = strings.NewReader("ls /\n")
	if text, err := sftp.CombinedOutput(); err == nil || !strings.Contains(string(text), "subsystem request failed") {
		t.Errorf("sftp: %v, %q", err, text)
	}
	r.says(t, in, "works", "system", "status") // and it is as it was
	t.Logf("figure: image, SSH refuses other commands, another key, another user, forwards and sftp: %s", verdict(!t.Failed()))
}

// logins: keys are added and taken away by SSH, by cistern and by the API; each
// acts at once, and without any the port is closed.
func (r *remote) logins(t *testing.T, ann, ben login) {
	t.Helper()
	if _, said, code := r.ssh(t, ann, nil, ben.public, "system", "ssh-key", "add", "-"); code != 0 {
		t.Errorf("add a key by SSH: %d, %q", code, said)
	}
	r.says(t, ben, "works", "system", "status")
	r.cistern(t, "Removed.", "system", "ssh-key", "remove", r.mark(t, ann.file+".pub"))
	r.refuses(t, ann, "Permission denied", "status")
	s, err := r.box.System(t.Context())
	if err != nil || len(s.SSH.Keys) != 1 || s.SSH.Keys[0].Comment != "ben" || s.SSH.HostKey != r.mark(t, r.known()) {
		t.Errorf("%+v, %v; OpenSSH knows %s", s.SSH, err, r.mark(t, r.known()))
	}
	if l, err := r.box.RemoveSSHKey(t.Context(), r.mark(t, ben.file+".pub")); err != nil || l.On {
		t.Errorf("%+v, %v", l, err)
	}
	began := time.Now()
	waitLong(t, "a closed port", func() bool { return !r.isOpen() })
	t.Logf("figure: image, SSH without a key: closed %.0f s after the last one was taken away (measured)", time.Since(began).Seconds())
	r.cistern(t, "Kept.", "system", "ssh-key", "add", ben.file+".pub")
	waitLong(t, "SSH once more", r.isOpen)
	r.says(t, ben, "works", "system", "status") // with the same key of the box
	r.cistern(t, "took a key of SSH away", "system", "log", "--unit", "system")
	r.cistern(t, "refused a key", "system", "log", "--unit", "ssh", "--level", "warn")
}

// schedule: it is set and shown, and nonsense is refused. That it is carried out
// shows TestImageChannel.
func (r *remote) schedule(t *testing.T) {
	t.Helper()
	const channel = "http://10.0.2.2:9/latest.json"
	r.cistern(t, "each day at 03:30 UTC", "system", "schedule", "--channel", channel, "--at", "03:30")
	r.cistern(t, channel, "system", "schedule")
	for _, words := range [][]string{{"schedule", "--at", "27:00"}, {"schedule", "--channel", "ftp://x"}, {"check"}} {
		if out, err := r.run(t, append([]string{"system"}, words...)...); err == nil {
			t.Errorf("%v: %s", words, out)
		}
	}
	if s, err := r.box.System(t.Context()); err != nil || s.Channel != channel || s.At != "03:30" {
		t.Errorf("%+v, %v", s, err)
	}
}

// remote is somebody who looks after a box from elsewhere.
type remote struct {
	*machine
	dir  string
	port string // host:port of the box's SSH on this machine's loopback
}

// login is a key.
type login struct {
	user   string // default cistern
	file   string
	public string
}

func (r *remote) key(t *testing.T, name string) login {
	t.Helper()
	file := filepath.Join(r.dir, name)
	if text, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s", err, text)
	}
	public, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return login{"cistern", file, string(public)}
}

// known is where OpenSSH keeps the box's own key.
func (r *remote) known() string { return filepath.Join(r.dir, "known_hosts") }

// mark is the fingerprint of the one key in a file.
func (r *remote) mark(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command("ssh-keygen", "-l", "-f", file).Output()
	if fields := strings.Fields(string(out)); err == nil && len(fields) > 1 {
		return fields[1]
	}
	t.Errorf("ssh-keygen -l: %v, %q", err, out)
	return ""
}

func (r *remote) options(by login) []string {
	_, port, _ := net.SplitHostPort(r.port)
	return []string{
		"-F", "/dev/null", "-i", by.file, "-o", "Port=" + port, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "UserKnownHostsFile=" + r.known(), "-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=120",
	}
}

// ssh says some words by OpenSSH and gives what came back.
func (r *remote) ssh(t *testing.T, by login, more []string, in string, words ...string) (out, said string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	args := append(append(r.options(by), more...), by.user+"@127.0.0.1")
	cmd := exec.CommandContext(ctx, "ssh", append(args, words...)...)
	var stdout, stderr strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &stdout, &stderr
	if err := cmd.Run(); ctx.Err() != nil || cmd.ProcessState == nil {
		t.Fatalf("ssh %v: %v, %v: %s", words, err, ctx.Err(), stderr.String())
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

func (r *remote) says(t *testing.T, by login, what string, words ...string) {
	t.Helper()
	if out, said, code := r.ssh(t, by, nil, "", words...); code != 0 || !strings.Contains(out, what) {
		t.Errorf("ssh %v: %d, %q, %q", words, code, out, said)
	}
}

func (r *remote) refuses(t *testing.T, by login, why string, words ...string) {
	t.Helper()
	if out, said, code := r.ssh(t, by, nil, "", words...); code != 255 || out != "" || !strings.Contains(said, why) {
		t.Errorf("ssh %v was not refused: %d, %q, %q", words, code, out, said)
	}
}

// forwarded asks the box's panel through a forward and gives what comes back.
func (r *remote) forwarded(t *testing.T, by login) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	local := freePort(t)
	cmd := exec.CommandContext(ctx, "ssh", append(r.options(by), "-N", "-L", local+":127.0.0.1:80", by.user+"@127.0.0.1")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}()
	var c net.Conn
	waitLong(t, "OpenSSH's own end of the forward", func() (there bool) {
		var err error
		c, err = net.Dial("tcp", local)
		return err == nil
	})
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET /login HTTP/1.0\r\nHost: cistern\r\n\r\n") // it may be closed already
	text, _ := io.ReadAll(io.LimitReader(c, 200))
	return string(text)
}

// isOpen says whether an SSH server answers. The emulator takes the connection
// and closes it where none does.
func (r *remote) isOpen() bool {
	c, err := net.Dial("tcp", r.port)
	if err != nil {
		return false
	}
	defer c.Close()
	hello := make([]byte, len("SSH-2.0-Cistern"))
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return false
	}
	_, err = io.ReadFull(c, hello)
	return err == nil && string(hello) == "SSH-2.0-Cistern"
}

// run says a command by the program cistern on this machine.
func (r *remote) run(t *testing.T, words ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), cistern(t), append([]string{"--box", "http://" + r.panel, "--token", applianceToken}, words...)...)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

func (r *remote) cistern(t *testing.T, what string, words ...string) {
	t.Helper()
	if out, err := r.run(t, words...); err != nil || !strings.Contains(out, what) {
		t.Errorf("cistern %v: %v, %s", words, err, out)
	}
}

// forward has the emulator lead a port of this machine's loopback to one of the
// box, from now on.
func (m *machine) forward(t *testing.T, port int) string {
	t.Helper()
	local := freePort(t)
	c, err := net.Dial("unix", m.monitor())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "hostfwd_add tcp:%s-:%d\n", local, port); err != nil {
		t.Fatal(err)
	}
	waitLong(t, "the emulator's forward", func() bool {
		c, err := net.Dial("tcp", local)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return local
}

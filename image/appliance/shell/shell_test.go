package shell

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestMain is also the program that sessions run: it says what it was given.
func TestMain(m *testing.M) {
	if os.Getenv("SHELL_TEST") == "" {
		os.Exit(m.Run())
	}
	args := os.Args[1:]
	said, err := json.Marshal(args)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(said))
	if slices.Contains(args, "env") {
		fmt.Println(os.Environ())
	}
	if slices.Contains(args, "ask") {
		text, _ := io.ReadAll(os.Stdin)
		fmt.Printf("told %q\n", text)
	}
	if slices.Contains(args, "line") {
		var word string
		_, err := fmt.Scanln(&word)
		fmt.Printf("heard %q %v\n", word, err)
	}
	fmt.Fprintln(os.Stderr, "a fault")
	code, _ := strconv.Atoi(args[len(args)-1])
	os.Exit(code)
}

// door is a Server on loopback, with the keys that it knows.
type door struct {
	*Server
	keys    string
	address string
	log     *diary
}

// diary is a log that is read while it is written.
type diary struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.Write(p)
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.String()
}

func open(t *testing.T, keys ...ssh.Signer) *door {
	t.Helper()
	host, err := NewHostKey()
	if err != nil {
		t.Fatal(err)
	}
	d := &door{keys: filepath.Join(t.TempDir(), "authorized_keys"), log: &diary{}}
	d.let(t, keys...)
	d.Server, err = New(Config{Keys: d.keys, HostKey: host, Program: []string{os.Args[0]}, Env: []string{"SHELL_TEST=1"}}, slog.New(slog.NewTextHandler(d.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d
}

// let writes the keys of those who may come in.
func (d *door) let(t *testing.T, keys ...ssh.Signer) {
	t.Helper()
	text := []byte("# who may come in\n\nnonsense\n")
	for _, k := range keys {
		text = append(text, ssh.MarshalAuthorizedKey(k.PublicKey())...)
	}
	if err := os.WriteFile(d.keys, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (d *door) dial(user string, how ...ssh.AuthMethod) (*ssh.Client, error) {
	return ssh.Dial("tcp", d.address, &ssh.ClientConfig{User: user, Auth: how, HostKeyCallback: ssh.FixedHostKey(d.host.PublicKey())})
}

func (d *door) enter(t *testing.T, key ssh.Signer) *ssh.Client {
	t.Helper()
	c, err := d.dial(User, ssh.PublicKeys(key))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func signer(t *testing.T, key any, err error) ssh.Signer {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return signer(t, key, err)
}

// run does one command and gives what came of it.
func run(t *testing.T, c *ssh.Client, stdin, line string) (out, errs string, code int) {
	t.Helper()
	s, err := c.NewSession()
	for errors.As(err, new(*ssh.OpenChannelError)) { // the last one is about to end
		s, err = c.NewSession()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var o, e bytes.Buffer
	s.Stdout, s.Stderr, s.Stdin = &o, &e, strings.NewReader(stdin)
	err = s.Run(line)
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitStatus()
	} else if err != nil {
		t.Errorf("%q: %v", line, err)
	}
	return o.String(), e.String(), code
}

func TestWhoIsLetIn(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	weak := signer(t, small, err)
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	strong := signer(t, large, err)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ec, mine, stranger := signer(t, curve, err), newKey(t), newKey(t)
	d := open(t, mine, strong, weak, ec)
	old, err := ssh.NewSignerWithAlgorithms(strong.(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSA})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, user string
		how        ssh.AuthMethod
		in         bool
	}{
		{"ed25519", User, ssh.PublicKeys(mine), true},
		{"ecdsa", User, ssh.PublicKeys(ec), true},
		{"rsa with SHA-2", User, ssh.PublicKeys(strong), true},
		{"rsa with SHA-1", User, ssh.PublicKeys(old), false},
		{"rsa of 1024 bits", User, ssh.PublicKeys(weak), false},
		{"a key that nobody let in", User, ssh.PublicKeys(stranger), false},
		{"another after the wrong one", User, ssh.PublicKeys(stranger, mine), true},
		{"root", "root", ssh.PublicKeys(mine), false},
		{"a password", User, ssh.Password("cistern"), false},
	} {
		conn, err := d.dial(c.user, c.how)
		if (err == nil) != c.in {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
	d.let(t, ec)
	if _, err := d.dial(User, ssh.PublicKeys(mine)); err == nil {
		t.Error("a key that was taken away lets in")
	}
	if err := os.Remove(d.keys); err != nil {
		t.Fatal(err)
	}
	if _, err := d.dial(User, ssh.PublicKeys(ec)); err == nil {
		t.Error("without a file somebody is let in")
	}
}

// Output, faults and exit status are carried over; words come as they were said.
func TestCommands(t *testing.T) {
	key := newKey(t)
	d := open(t, key)
	c := d.enter(t, key)
	for _, x := range []struct {
		line, stdin, out, errs string
		code                   int
	}{
		{"status", "", `["status"]` + "\n", "a fault\n", 0},
		{"status 3", "", `["status","3"]` + "\n", "a fault\n", 3},
		{"logs -n 5", "", `["system","log","-n","5"]` + "\n", "a fault\n", 5},
		{"help system", "", `["system","--help"]` + "\n", "a fault\n", 0},
		{"update ask", "signed\x00\xff", `["update","ask"]` + "\ntold \"signed\\x00\\xff\"\n", "a fault\n", 0},
		{`explain 'a b' "c\"d" e\ f; reboot | cat $HOME`, "", `["explain","a b","c\"d","e f;","reboot","|","cat","$HOME"]` + "\n", "a fault\n", 0},
		{"purge 'one\ntwo'", "", `["purge","one\ntwo"]` + "\n", "a fault\n", 0},
		{"status env", "", `["status","env"]` + "\n[SHELL_TEST=1]\n", "a fault\n", 0},
		{"status \x00", "", "", "cistern: this line cannot be read: it is too long, or no text\n", failed},
		{"status 'x", "", "", "cistern: this line cannot be read: a quote has no end\n", failed},
		{"", "", "", "cistern: this line cannot be read: it is empty\n", failed},
		{"sh -c id", "", "", "cistern: this cannot be done by SSH: there is no command \"sh\" here; help lists those that there are\n", failed},
		{"norm send /etc/passwd", "", "", "cistern: this cannot be done by SSH: there is no command \"norm\" here; help lists those that there are\n", failed},
		{"status --box=http://evil.test", "", "", "cistern: this cannot be done by SSH: --box\n", failed},
		{"status '--token' x", "", "", "cistern: this cannot be done by SSH: --token\n", failed},
	} {
		out, errs, code := run(t, c, x.stdin, x.line)
		if out != x.out || errs != x.errs || code != x.code {
			t.Errorf("%q: %q %q %d", x.line, out, errs, code)
		}
	}
	if text := d.log.String(); !strings.Contains(text, "logged in") || !strings.Contains(text, ssh.FingerprintSHA256(key.PublicKey())) || !strings.Contains(text, "client=127.0.0.1") {
		t.Errorf("the log says\n%s", text)
	}
}

func TestPrompt(t *testing.T) {
	key := newKey(t)
	d := open(t, key)
	s, err := d.enter(t, key).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	// A line that is taken back, an arrow key, and an answer to a program.
	for _, x := range []struct{ keys, until string }{
		{"", "Cistern. Say a command of cistern; help lists them, exit leaves.\r\ncistern> "},
		{"nonsensz\x7f\x1b[Ae\r\n", "nonsensz\b \be\r\ncistern: this cannot be done by SSH: there is no command \"nonsense\" here; help lists those that there are\r\ncistern> "},
		{"\r", "\r\ncistern> "},
		{"x\x15status lime\x08\x08ne 4\r", "x\b \bstatus lime\b \b\b \bne 4\r\n[\"status\",\"line\",\"4\"]\r\n"},
		{"hello\r", "hello\r\nheard \"hello\" <nil>\r\na fault\r\ncistern> "},
		{"exit\r", "exit\r\n"},
	} {
		if _, err := io.WriteString(in, x.keys); err != nil {
			t.Fatal(err)
		}
		shown := make([]byte, len(x.until))
		if n, err := io.ReadFull(out, shown); err != nil || string(shown) != x.until {
			t.Fatalf("%q: %q, %v", x.keys, shown[:n], err)
		}
	}
	var exit *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 4 {
		t.Errorf("%v", err)
	}
}

// Ctrl+C ends what runs.
func TestStop(t *testing.T) {
	key := newKey(t)
	d := open(t, key)
	s, err := d.enter(t, key).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err = errors.Join(err, s.RequestPty("xterm", 24, 80, nil)); err != nil {
		t.Fatal(err)
	}
	if err := s.Start("status ask 0"); err != nil {
		t.Fatal(err)
	}
	shown := make([]byte, len("[\"status\",\"ask\",\"0\"]\r\n"))
	if _, err := io.ReadFull(out, shown); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "\x03"); err != nil {
		t.Fatal(err)
	}
	var exit *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != failed {
		t.Errorf("%v", err)
	}
}

// Lines that a script sends are done one after the other, without a prompt.
func TestScript(t *testing.T) {
	key := newKey(t)
	d := open(t, key)
	s, err := d.enter(t, key).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out bytes.Buffer
	s.Stdout, s.Stdin = &out, strings.NewReader("status\nexit\n")
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil || out.String() != "[\"status\"]\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestNothingElse(t *testing.T) {
	key := newKey(t)
	d := open(t, key)
	c := d.enter(t, key)
	if conn, err := c.Dial("tcp", "127.0.0.1:80"); err == nil {
		_ = conn.Close()
		t.Error("a port is forwarded")
	}
	if l, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
		_ = l.Close()
		t.Error("a port is forwarded back")
	}
	if _, _, err := c.OpenChannel("auth-agent@openssh.com", nil); err == nil {
		t.Error("an agent is forwarded")
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.RequestSubsystem("sftp"); err == nil {
		t.Error("there is sftp")
	}
	if err := s.Setenv("LD_PRELOAD", "/tmp/x"); err == nil {
		t.Error("the environment is the client's")
	}
	if ok, err := s.SendRequest("auth-agent-req@openssh.com", true, nil); ok || err != nil {
		t.Errorf("an agent is asked for: %v, %v", ok, err)
	}
	if s2, err := c.NewSession(); err == nil {
		_ = s2.Close()
		t.Error("two sessions on one connection")
	}
}

// Four are in at most, and a place is free again when one has left.
func TestPlaces(t *testing.T) {
	key := newKey(t)
	d := open(t, key)
	var in []*ssh.Client
	for range maxSessions {
		c := d.enter(t, key)
		run(t, c, "", "status")
		in = append(in, c)
	}
	if c, err := d.dial(User, ssh.PublicKeys(key)); err == nil {
		if s, err := c.NewSession(); err == nil {
			_ = s.Close()
			t.Error("one too many is in")
		}
		_ = c.Close()
	}
	if err := in[0].Close(); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		c, err := d.dial(User, ssh.PublicKeys(key))
		if err == nil {
			var s *ssh.Session
			if s, err = c.NewSession(); err == nil {
				_ = s.Close()
			}
			_ = c.Close()
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Those who say nothing are held to a number.
func TestKnocking(t *testing.T) {
	key := newKey(t)
	d := open(t, key)
	for range maxWaiting {
		c, err := net.Dial("tcp", d.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 4)); err != nil { // the server has begun with it
			t.Fatal(err)
		}
	}
	if _, err := d.dial(User, ssh.PublicKeys(key)); err == nil {
		t.Error("one too many was heard")
	}
}

func TestOnLAN(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "192.168.1.7": true, "10.1.2.3": true, "fd00::7": true, "fe80::1%eth0": true, "::ffff:10.0.0.1": true,
		"203.0.113.9": false, "2001:db8::1": false, "::ffff:203.0.113.9": false,
	} {
		if got := onLAN(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

// Debian's own client gets in, runs a command and carries its status over.
func TestOpenSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("ssh is not installed (hwtest/setup.sh)")
		}
		t.Skip("ssh is not installed (hwtest/setup.sh)")
	}
	pem, err := NewHostKey() // any key in OpenSSH's own format
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, key)
	dir := t.TempDir()
	host, port, _ := net.SplitHostPort(d.address)
	known := fmt.Sprintf("[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(d.host.PublicKey()))
	err = errors.Join(os.WriteFile(filepath.Join(dir, "id"), pem, 0o600), os.WriteFile(filepath.Join(dir, "known"), []byte(known), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "ssh", "-F", "none", "-i", filepath.Join(dir, "id"), "-o", "UserKnownHostsFile="+filepath.Join(dir, "known"),
		"-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "IdentityAgent=none", "-p", port, User+"@"+host, "update", "ask", "7")
	cmd.Stdin = strings.NewReader("signed")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 || string(out) != "[\"update\",\"ask\",\"7\"]\ntold \"signed\"\n" || !strings.Contains(errs.String(), "a fault") {
		t.Errorf("%v %q %q", err, out, &errs)
	}
}

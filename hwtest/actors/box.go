package actors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// Ports of the box, as DESIGN.md gives them.
const (
	ProxyPort = "3142"
	AdminPort = "8080"
)

// Box is a running cisternd.
type Box struct {
	Process *lab.Process
	Host    *lab.Host
	// Data is its data directory, Bin the directory of the binaries.
	Data, Bin string
}

// StartBox runs cisternd from bin on a host, with the given TOML configuration
// (without [admin], which it adds), and waits until it answers. data stands above
// store.dir.
func StartBox(ctx context.Context, host *lab.Host, bin, data, config string) (*Box, error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("start box: %w", err)
	}
	file := host.File("box.toml")
	config += fmt.Sprintf("\n[admin]\nlisten = \"127.0.0.1:%s\"\n", AdminPort)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("start box: %w", err)
	}
	b := &Box{Host: host, Data: data, Bin: bin}
	b.Process = host.Command(filepath.Join(bin, "cisternd"), "--config", file, "--data", data)
	// Up to 64 MiB may have to reach the disk before the box ends, and a shared
	// disk can be slow.
	b.Process.Grace = 30 * time.Second
	if err := b.Process.Start(ctx); err != nil {
		return nil, err
	}
	for _, addr := range []string{host.Addr().String() + ":" + ProxyPort, "127.0.0.1:" + AdminPort} {
		if err := waitListening(ctx, host, b.Process, addr); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Kill ends the box as a power cut would end the process: with SIGKILL, and
// waits until it is gone.
func (b *Box) Kill() error {
	if err := syscall.Kill(b.Process.Pid(), syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill box: %w", err)
	}
	<-b.Process.Done()
	return nil
}

// waitListening waits until something on the host accepts on addr, or the
// process is gone.
func waitListening(ctx context.Context, host *lab.Host, p *lab.Process, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		conn, err := host.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.Done():
			output, _ := os.ReadFile(p.OutputFile)
			return fmt.Errorf("%s ended before it listened on %s: %s", p.OutputFile, addr, output)
		case <-ctx.Done():
			return fmt.Errorf("nothing listens on %s: %w", addr, errors.Join(ctx.Err(), err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// URL is the box's address as its clients write it.
func (b *Box) URL() string {
	return "http://" + net.JoinHostPort(b.Host.Addr().String(), ProxyPort)
}

// Command runs `cistern` with args against the box and returns what it prints.
func (b *Box) Command(ctx context.Context, args ...string) ([]byte, error) {
	if _, err := b.token(ctx); err != nil {
		return nil, fmt.Errorf("command the box: %w", err)
	}
	args = append([]string{"--data", b.Data}, args...)
	return b.Host.Run(ctx, filepath.Join(b.Bin, "cistern"), args...)
}

// token reads the box's token, which it may write a moment after it listens.
func (b *Box) token(ctx context.Context) ([]byte, error) {
	for tries := 0; ; tries++ {
		token, err := os.ReadFile(filepath.Join(b.Data, "admin.token"))
		if err == nil && len(token) > 0 || tries == 1200 { // a minute
			return token, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// API gets a path of the JSON API, such as "/api/v1/status", into v.
func (b *Box) API(ctx context.Context, path string, v any) error {
	token, err := b.token(ctx)
	if err != nil {
		return fmt.Errorf("ask the box: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+AdminPort+path, nil)
	if err != nil {
		return fmt.Errorf("ask the box: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := b.Host.HTTPClient().Do(req)
	if err != nil {
		return fmt.Errorf("ask the box: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the box for %s: %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("ask the box for %s: %w", path, err)
	}
	return nil
}

// Agent is a running cistern-agent.
type Agent struct {
	Process *lab.Process
	Host    *lab.Host
}

// StartAgent enrols an agent with the box whose key has the given fingerprint,
// runs it on a host and waits until its proxy answers on 127.0.0.1.
func StartAgent(ctx context.Context, host *lab.Host, bin, data, boxURL, fingerprint string) (*Agent, error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	program := filepath.Join(bin, "cistern-agent")
	_, err := host.Run(ctx, program, "enrol", "--box", boxURL, "--key", fingerprint, "--name", host.Name(), "--data", data)
	if err != nil {
		return nil, err
	}
	a := &Agent{Host: host, Process: host.Command(program, "run", "--data", data)}
	if err := a.Process.Start(ctx); err != nil {
		return nil, err
	}
	return a, waitListening(ctx, host, a.Process, "127.0.0.1:"+ProxyPort)
}

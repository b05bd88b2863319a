package appliance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// daemonID is the user and the group that the daemon runs as.
const daemonID = 100

// How soon the daemon is started again.
const (
	firstPause = time.Second
	lastPause  = time.Minute
	steady     = 5 * time.Minute // a run of this length starts the pauses anew
)

// supervise keeps the daemon running until ctx is done.
func (b *Box) supervise(ctx context.Context) {
	for rest := firstPause; ; rest = min(2*rest, lastPause) {
		start := time.Now()
		err := b.runDaemon(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(start) > steady {
			rest = firstPause
		}
		b.mu.Lock()
		b.restarts++
		b.mu.Unlock()
		b.log.Error("daemon ended", "err", err, "again_in", rest)
		if pause(ctx, rest) {
			return
		}
	}
}

func (b *Box) runDaemon(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, b.cfg.Daemon, "--config", configFile, "--data", storeDir)
	cmd.Dir = storeDir
	cmd.Env = []string{"HOME=" + storeDir, "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", "CISTERN_APPLIANCE=" + Socket}
	said := b.ring.Unit(filepath.Base(b.cfg.Daemon))
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: daemonID, Gid: daemonID},
		// CAP_NET_ADMIN is what steering takes: rules and routes of the kernel.
		AmbientCaps: []uintptr{unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW, unix.CAP_NET_ADMIN},
		Pdeathsig:   syscall.SIGKILL,
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 15 * time.Second
	return cmd.Run()
}

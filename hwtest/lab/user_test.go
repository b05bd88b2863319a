//go:build linux

package lab_test

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

func itoa(n int) string { return strconv.Itoa(n) }

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// Without root the test binary runs itself again in a user namespace, where a
// NAT, a lossy path and a program work, and where a wire is refused loudly.
func TestLabWithoutRoot(t *testing.T) {
	lab.Require(t, lab.Root)
	dir, err := os.MkdirTemp("", "lab-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "lab.test")
	if err := os.WriteFile(binary, self, 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(ci string) string {
		cmd := exec.Command(binary, "-test.v", "-test.run",
			"^(TestNATHidesTheLAN|TestFlowsAreCounted|TestLossOfWhatAHostSends|TestProcessRunsInItsHost|TestDelayIsKeptAndOrderToo)$")
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "CI=" + ci}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL,
		}
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	out := run("")
	for _, want := range []string{
		"running again in a user namespace",
		"--- PASS: TestNATHidesTheLAN", "--- PASS: TestFlowsAreCounted", "--- PASS: TestLossOfWhatAHostSends",
		"--- PASS: TestProcessRunsInItsHost",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output", want)
		}
	}
	// Where /dev/net/tun is open to all, a wire works there too.
	wire := "TestDelayIsKeptAndOrderToo"
	if !strings.Contains(out, "--- PASS: "+wire) {
		if !strings.Contains(out, "--- SKIP: "+wire) || !strings.Contains(out, "SKIPPED") {
			t.Error("the test of a wire was neither passed nor skipped loudly")
		}
		if !strings.Contains(run("true"), "--- FAIL: "+wire) {
			t.Error("CI=true allowed a skip")
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

// recorder is a lab.TB that notes what it is told.
type recorder struct {
	lab.TB
	skipped, fatal string
}

func (r *recorder) Helper()                           {}
func (r *recorder) Skipf(format string, args ...any)  { r.skipped = fmt.Sprintf(format, args...) }
func (r *recorder) Fatalf(format string, args ...any) { r.fatal = fmt.Sprintf(format, args...) }

func TestRequireAllowsNoSkipInCI(t *testing.T) {
	for ci, wantFatal := range map[string]bool{"true": true, "1": true, "": false, "false": false} {
		t.Setenv("CI", ci)
		r := &recorder{}
		lab.Require(r, lab.Need(99))
		if (r.fatal != "") != wantFatal || (r.skipped != "") == wantFatal {
			t.Errorf("CI=%q: fatal %q, skipped %q", ci, r.fatal, r.skipped)
		}
	}
}

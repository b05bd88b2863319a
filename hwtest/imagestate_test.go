//go:build soak

package hwtest

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/hwtest/actors"
	"github.com/cistern-edge/cistern/image"
)

// running gives a machine on which release 1.0 works. How it came there is shown
// by TestImageStarts; here the emulator goes on from where it once stood, so that
// a story of many starts does not begin with one more.
func (f *foundry) running(t *testing.T) *machine {
	t.Helper()
	kept := filepath.Join(f.dir, "running")
	if _, err := os.Stat(kept + ".state"); err != nil {
		m := newMachine(t, pc{}, f.base(t), diskSize)
		m.powerOn(t)
		m.awaitStart(t)
		m.freeze(t, kept+".part")
		m.powerOff()
		copyDisk(t, kept+".img", m.disk, 0)
		copyDisk(t, kept+".fd", filepath.Join(m.dir, "vars.fd"), 0)
		if err := os.Rename(kept+".part", kept+".state"); err != nil {
			t.Fatal(err)
		}
	}
	m := newMachine(t, pc{}, kept+".img", 0)
	copyDisk(t, filepath.Join(m.dir, "vars.fd"), kept+".fd", 0)
	m.start(t, append(m.arguments(), "-incoming", "exec:cat '"+kept+".state'"))
	m.awaitStart(t)
	return m
}

func (m *machine) powerOff() { m.stop() }

// freeze writes the machine's memory and devices to a file; it then stands still,
// for ever.
func (m *machine) freeze(t *testing.T, name string) {
	t.Helper()
	name, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", m.monitor())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "migrate_set_parameter max-bandwidth 10G\nmigrate_set_parameter downtime-limit 5000\nmigrate \"exec:cat > '%s'\"\ninfo migrate\n", name); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(conn)
	for said.Scan() {
		if strings.Contains(said.Text(), "Migration status: completed") {
			return
		}
	}
	t.Fatalf("the emulator's state was not kept: %v", said.Err())
}

// ballast puts a file of that size onto the data partition of a machine that was
// not started yet.
func (m *machine) ballast(t *testing.T, size int64) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ballast")
	if _, err := actors.WriteContent(file, size, 1); err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("%s?offset=%d", m.disk, image.Partitions()[image.PartData-1].Start)
	if text, err := exec.Command("debugfs", "-w", "-R", "write "+file+" ballast", at).CombinedOutput(); err != nil || strings.Contains(string(text), "rror") {
		t.Fatalf("write to the data partition (package e2fsprogs): %v %s", err, text)
	}
}

// verbose has the kernel write to the serial line what it does.
func (m *machine) verbose(t *testing.T) {
	t.Helper()
	at := m.disk + "@@" + strconv.FormatInt(image.Partitions()[image.PartESP-1].Start, 10)
	cfg, err := exec.Command("mtype", "-i", at, "::"+image.GrubCfgPath).Output()
	if err != nil {
		t.Fatalf("read grub.cfg (package mtools): %v", err)
	}
	m.put(t, image.PartESP, image.GrubCfgPath, bytes.Replace(cfg, []byte("quiet loglevel=4"), []byte("loglevel=7"), 1))
}

var (
	unpacked = regexp.MustCompile(`\[ *([0-9.]+)\] Freeing initrd memory`)
	came     = regexp.MustCompile(`msg=works .*stages="([^"]*)"`)
)

// stages are those of the last start, with their seconds since the kernel's, if
// the kernel was verbose.
func (m *machine) stages(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(m.log())
	if err != nil {
		t.Fatal(err)
	}
	kernel, own := unpacked.FindSubmatch(text), came.FindSubmatch(text)
	if kernel == nil || own == nil {
		t.Fatalf("the serial line does not tell how the start went: %q, %q", kernel, own)
	}
	return fmt.Sprintf("initrd unpacked=%s %s", kernel[1], own[1])
}

// with is an image of release 1.0, in a folder of its own, that has one more of
// the project's programs, and others in place of what it has.
func (f *foundry) with(t *testing.T, program string, others func(own *foundry)) string {
	t.Helper()
	own := *f
	own.dir = t.TempDir()
	own.settings(t)
	others(&own)
	own.more = ";bin/" + program + "=" + filepath.Join(own.dir, program)
	compile(t, f.arch, filepath.Join(own.dir, program), "../cmd/"+program)
	return own.base(t)
}

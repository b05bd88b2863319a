//go:build soak

package hwtest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// TestImageDisks: on an emulated machine with three bad disks, cistern hwtest
// says of each what is wrong with it, of the one that hangs too.
func TestImageDisks(t *testing.T) {
	f := newFoundry(t)
	m := newMachine(t, pc{}, f.qualifier(t), 0)
	for i, d := range []*badDisk{
		{serial: "fake", size: 2 << 30, holds: 256 << 20},
		{serial: "slow", size: 1 << 30, rate: 5e6},
		{serial: "hangs", size: 1 << 30, last: 40},
	} {
		m.more = append(m.more, "-drive", fmt.Sprintf("if=none,id=%s,format=raw,file=nbd://%s", d.serial, d.serve(t)),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s,addr=%#x", d.serial, d.serial, 0x11+i))
	}
	told := filepath.Join(m.dir, "told") // the console's log repeats what its socket was too slow for
	m.more = append(m.more, "-chardev", "file,id=told,path="+told, "-serial", "chardev:told")
	m.powerOn(t)
	said := regexp.MustCompile(`qualified (\w+) (\d+) <nil> (.*)`)
	var lines [][]string
	waitLong(t, "reports of three disks", func() bool {
		text, err := os.ReadFile(told)
		lines = said.FindAllStringSubmatch(string(text), -1)
		return err == nil && len(lines) == 3
	})
	for i, want := range []struct{ level, text string }{{client.Bad, "a fake"}, {client.Warn, "slow"}, {client.Bad, "hangs"}} {
		var report client.Qualification
		if err := json.Unmarshal([]byte(strings.TrimSpace(lines[i][3])), &report); err != nil {
			t.Errorf("%s: %v: %s", lines[i][1], err, lines[i][3])
			continue
		}
		found := ""
		for _, f := range report.Verdict.Findings {
			if f.Part == "disk" && f.Level == want.level && strings.Contains(f.Text, want.text) {
				found = f.Text
			}
		}
		if found == "" || want.level == client.Bad && report.Verdict.Fit {
			t.Errorf("%s: %+v", lines[i][1], report)
		}
		t.Logf("figure: hwtest on an emulated disk (%s): %q after %s s: %s", lines[i][1], found, lines[i][2], verdict(found != ""))
	}
}

// qualifier is an image of release 1.0 that measures the disks of its machine.
func (f *foundry) qualifier(t *testing.T) string {
	t.Helper()
	return f.with(t, "cistern", func(own *foundry) {
		own.init = filepath.Join(own.dir, "qualifybox")
		compile(t, own.arch, own.init, "./testdata/qualifybox")
	})
}

// badDisk is a disk that the emulator has by NBD (the protocol's document,
// "fixed newstyle").
type badDisk struct {
	serial string
	size   int64 // bytes that it says it has
	holds  int64 // bytes after which it comes round; 0: all
	rate   int64 // bytes a second; 0: as it can
	last   int   // MiB written after which it answers no more; 0: always
	body   *os.File
}

// serve gives the address of the disk.
func (d *badDisk) serve(t *testing.T) string {
	t.Helper()
	var err error
	if d.body, err = os.CreateTemp(t.TempDir(), "disk"); err != nil {
		t.Fatal(err)
	}
	if d.holds == 0 {
		d.holds = d.size
	}
	if err := d.body.Truncate(d.holds); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(l.Close(), d.body.Close()) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if err := d.greet(c); err == nil {
					_ = d.answer(c) // until the emulator has gone
				}
			}()
		}
	}()
	return l.Addr().String()
}

// Numbers of the protocol.
const (
	nbdOptionReply = 0x3e889045565a9
	nbdGo          = 7
	nbdAck         = 1
	nbdInfo        = 3
	nbdUnsupported = 1<<31 + 1
	nbdReply       = 0x67446698
	nbdRead        = 0
	nbdWrite       = 1
	nbdDisconnect  = 2
)

var be = binary.BigEndian

// greet agrees on the disk.
func (d *badDisk) greet(c net.Conn) error {
	if _, err := c.Write(append([]byte("NBDMAGICIHAVEOPT"), 0, 3)); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, c, 4); err != nil {
		return err
	}
	for head := make([]byte, 16); ; {
		if _, err := io.ReadFull(c, head); err != nil {
			return err
		}
		option := be.Uint32(head[8:])
		if _, err := io.CopyN(io.Discard, c, int64(be.Uint32(head[12:]))); err != nil {
			return err
		}
		reply := func(kind uint32, body []byte) error {
			b := be.AppendUint32(be.AppendUint32(be.AppendUint64(nil, nbdOptionReply), option), kind)
			_, err := c.Write(append(be.AppendUint32(b, uint32(len(body))), body...))
			return err
		}
		if option != nbdGo {
			if err := reply(nbdUnsupported, nil); err != nil {
				return err
			}
			continue
		}
		const hasFlags, canFlush = 1, 4
		export := be.AppendUint16(be.AppendUint64(be.AppendUint16(nil, 0), uint64(d.size)), hasFlags|canFlush)
		return errors.Join(reply(nbdInfo, export), reply(nbdAck, nil))
	}
}

// answer reads and writes, each in its turn.
func (d *badDisk) answer(c net.Conn) error {
	written := 0
	for head := make([]byte, 28); ; {
		if _, err := io.ReadFull(c, head); err != nil {
			return err
		}
		kind, off, n := be.Uint16(head[6:]), int64(be.Uint64(head[16:])), int64(be.Uint32(head[24:]))
		if kind == nbdDisconnect || n > 64<<20 {
			return nil
		}
		reply := append(be.AppendUint32(be.AppendUint32(nil, nbdReply), 0), head[8:16]...)
		if d.rate > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(d.rate))
		}
		switch kind {
		case nbdRead:
			body := make([]byte, n)
			if err := d.round(off, body, d.body.ReadAt); err != nil {
				return err
			}
			reply = append(reply, body...)
		case nbdWrite:
			body := make([]byte, n)
			if _, err := io.ReadFull(c, body); err != nil {
				return err
			}
			if err := d.round(off, body, d.body.WriteAt); err != nil {
				return err
			}
			if written += len(body); d.last > 0 && written > d.last<<20 {
				_, err := io.Copy(io.Discard, c)
				return err
			}
		}
		if _, err := c.Write(reply); err != nil {
			return err
		}
	}
}

// round moves a body to or from where it comes to lie.
func (d *badDisk) round(off int64, body []byte, move func([]byte, int64) (int, error)) error {
	for len(body) > 0 {
		at := off % d.holds
		n := min(int64(len(body)), d.holds-at)
		if _, err := move(body[:n], at); err != nil {
			return err
		}
		body, off = body[n:], off+n
	}
	return nil
}

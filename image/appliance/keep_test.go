package appliance

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

func TestTimeOffset(t *testing.T) {
	query := make([]byte, timePacket)
	copy(query[40:], "a nonce!")
	sent := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	right := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	answer := make([]byte, timePacket)
	answer[0], answer[1] = 4<<3|4, 2
	copy(answer[24:], query[40:])
	for _, at := range []int{32, 40} {
		binary.BigEndian.PutUint32(answer[at:], uint32(right.Unix()-ntpEpoch))
	}
	got, err := timeOffset(query, answer, sent, sent.Add(200*time.Millisecond))
	if want := right.Sub(sent) - 100*time.Millisecond; err != nil || got != want {
		t.Errorf("%v, %v", got, err)
	}
	for name, spoil := range map[string]func(a []byte){
		"another's nonce":  func(a []byte) { a[24]++ },
		"not synchronized": func(a []byte) { a[0] |= 3 << 6 },
		"a kiss of death":  func(a []byte) { a[1] = 0 },
		"a query":          func(a []byte) { a[0] = 4<<3 | 3 },
		"the year 1970": func(a []byte) {
			binary.BigEndian.PutUint32(a[40:], 1<<31+70)
			binary.BigEndian.PutUint32(a[32:], 1<<31+70)
		},
	} {
		bad := bytes.Clone(answer)
		spoil(bad)
		if _, err := timeOffset(query, bad, sent, sent); !errors.Is(err, ErrTime) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if y := ntpTime([]byte{0, 0, 0, 1, 0, 0, 0, 0}).Year(); y != 2036 {
		t.Errorf("the first second of era 1 is in %d", y)
	}
}

func FuzzTimeOffset(f *testing.F) {
	f.Add(make([]byte, timePacket))
	f.Fuzz(func(_ *testing.T, answer []byte) {
		_, _ = timeOffset(make([]byte, timePacket), answer, time.Unix(0, 0), time.Unix(1, 0))
	})
}

func TestCrossed(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		from, to time.Duration
		at       string
		want     bool
	}{
		{-5 * time.Second, 0, "12:00", true},
		{0, 5 * time.Second, "12:00", false},
		{-5 * time.Second, 5 * time.Second, "12:01", false},
		{-12*time.Hour - time.Second, -12*time.Hour + time.Second, "00:00", true},
		{-9 * time.Hour, 0, "11:00", false}, // the clock was set
	} {
		if got := crossed(noon.Add(row.from), noon.Add(row.to), row.at); got != row.want {
			t.Errorf("%+v: %v", row, got)
		}
	}
}

func TestSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "network.toml")
	if s, err := readSettings[networkSettings](file); err != nil || s.Bridge {
		t.Errorf("a file that is not there: %+v, %v", s, err)
	}
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("name = \"depot-3\"\naddress = \"192.0.2.10/24\"\nvlan = 20\nbridge = true\n")
	if s, err := readSettings[networkSettings](file); err != nil || s.VLAN != 20 || !s.Bridge || s.Name != "depot-3" {
		t.Errorf("%+v, %v", s, err)
	}
	write("address = \"192.0.2.10\"\nvlan = 5000\nname = \"a b\"\ngateway = \"x\"\ndns = [\"y\"]\n")
	s, err := readSettings[networkSettings](file)
	for _, want := range []string{"address", "vlan", "name", "gateway", "dns"} {
		if err == nil || !strings.Contains(err.Error(), want+":") {
			t.Errorf("no fault with %s: %v", want, err)
		}
	}
	if s.VLAN != 0 {
		t.Errorf("settings with faults were taken: %+v", s)
	}
	write("adress = \"192.0.2.10/24\"\n")
	if _, err := readSettings[networkSettings](file); err == nil {
		t.Error("a key that nobody knows was taken")
	}
	write("channel = \"ftp://x\"\nat = \"25:00\"\n")
	if _, err := readSettings[updateSettings](file); err == nil || !strings.Contains(err.Error(), "channel:") || !strings.Contains(err.Error(), "at:") {
		t.Errorf("%v", err)
	}
}

// TestFormat makes a partition anew, and knows one whose making was cut.
func TestFormat(t *testing.T) {
	dir := t.TempDir()
	dev, empty := filepath.Join(dir, "dev"), filepath.Join(dir, "empty.zst")
	want := bytes.Repeat([]byte("new"), 4*block)
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := z.EncodeAll(want, nil)
	for name, body := range map[string][]byte{dev: bytes.Repeat([]byte("old"), 8*block), empty: packed[:len(packed)/2]} {
		if err := os.WriteFile(name, body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if halfMade(dev) {
		t.Error("a partition that is well is thought half made")
	}
	if err := format(dev, empty); err == nil || !halfMade(dev) {
		t.Errorf("one whose making was cut is thought whole: %v", err)
	}
	if err := os.WriteFile(empty, packed, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := format(dev, empty); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dev)
	if err != nil || !bytes.Equal(got[:len(want)], want) || halfMade(dev) {
		t.Errorf("made otherwise: %v", err)
	}
}

// sitter is the machine that a console commands.
type sitter struct{ did []string }

func (*sitter) Disks() []Disk {
	return []Disk{{Name: "sda", Own: true}, {Name: "sdb", Model: "SPINNER", Bytes: 1e9, Holds: []string{"sdb1: photos (900 MB)"}}}
}

func (s *sitter) Install(_ context.Context, disk string) error {
	s.did = append(s.did, disk)
	return nil
}

func (s *sitter) Reset(context.Context) error { s.did = append(s.did, "reset"); return nil }
func (s *sitter) restart(string)              { s.did = append(s.did, "restart") }

func TestConsole(t *testing.T) {
	for _, row := range []struct{ lines, did, says string }{
		{"disks", "", "sdb: SPINNER, 1000 MB, holds sdb1: photos"},
		{"install sdb", "", "photos"},
		{"install sdb\nyes", "sdb", "Installed on sdb"},
		{"install sdb\nno\nyes", "", "factory reset"},
		{"install sda\nyes", "", "started from"},
		{"install sdx\nyes", "", "no such disk"},
		{"reset", "", "Type yes"},
		{"reset\nyes", "reset", ""},
		{"yes", "", "install DISK"},
		{"restart", "restart", ""},
		{"rm -rf", "", "install DISK"},
	} {
		var c conversation
		var s sitter
		var said bytes.Buffer
		for line := range strings.Lines(row.lines) {
			c.hear(t.Context(), &s, line, &said)
		}
		if strings.Join(s.did, " ") != row.did || !strings.Contains(said.String(), row.says) {
			t.Errorf("%q: did %v, said %q", row.lines, s.did, said.String())
		}
	}
}

func TestListDisks(t *testing.T) {
	class := t.TempDir()
	for name, text := range map[string]string{
		"sda/size": "2097152", "sda/device/model": "SPINNER  ", "sda/sda1/partition": "1", "sda/sda1/size": "2048", "sda/sda1/uevent": "PARTNAME=photos\n",
		"vda/size": "100", "vda/device/x": "", "loop0/size": "2048", "sr0/size": "0", "sr0/device/x": "",
	} {
		file := filepath.Join(class, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	disks := listDisks(class, "vda")
	if len(disks) != 2 || disks[0].Model != "SPINNER" || disks[0].TooSmall || len(disks[0].Holds) != 1 || !strings.Contains(disks[0].Holds[0], "photos") || !disks[1].Own || !disks[1].TooSmall {
		t.Errorf("%+v", disks)
	}
}

// TestChannel follows one: what is newer is taken, what runs or has failed is
// not, and each time the reason is told.
func TestChannel(t *testing.T) {
	b := newBench(t, Boot{Slot: "a"})
	newest := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/edge/latest.json":
			fmt.Fprint(w, newest)
		case "/edge/1.1.update":
			_, _ = w.Write(b.file(t, system, nil))
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	if _, err := b.Check(t.Context()); !errors.Is(err, ErrNoChannel) {
		t.Errorf("no channel: %v", err)
	}
	b.updates.set(updateSettings{Channel: server.URL + "/edge/latest.json"})
	for _, row := range []struct{ newest, state, says string }{
		{`{"version":"1.0","serial":100,"update":"1.0.update"}`, "current", "not newer"},
		{`{"version":"1.2","serial":102,"update":"gone.update"}`, "", "404"},
		{`{"version":"1.2","serial":102,"update":"file:///etc/passwd"}`, "", "no URL"},
		{`nonsense`, "", "channel"},
		{`{"version":"1.1","serial":101,"update":"1.1.update"}`, "trial", ""},
	} {
		newest = row.newest
		o, err := b.Check(t.Context())
		if o.State != row.state || !strings.Contains(fmt.Sprint(o.Reason, err), row.says) {
			t.Errorf("%s: %+v, %v", row.newest, o, err)
		}
	}
	b.outcome(func(o *Outcome) { o.State, o.Reason = "failed", "it hung" })
	if o, err := b.Check(t.Context()); err != nil || o.State != "current" || !strings.Contains(o.Reason, "it hung") {
		t.Errorf("what failed here: %+v, %v", o, err)
	}
}

func TestNewestOnAStick(t *testing.T) {
	b := newBench(t, Boot{Slot: "a"})
	dir := t.TempDir()
	put := func(name string, body []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, body, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	newer := put("newer.update", b.file(t, system, nil))
	forged := put("forged.update", []byte("something else, and long enough to be read"))
	if got := b.newest([]string{forged, newer}); got != newer {
		t.Errorf("took %q", got)
	}
	if got := b.newest([]string{forged}); got != forged {
		t.Errorf("a forged one was left without a word: %q", got)
	}
	b.release.Serial = 101
	if got := b.newest([]string{newer}); got != "" {
		t.Errorf("took what runs: %q", got)
	}
}

func TestSyslogLine(t *testing.T) {
	at := time.Date(2026, 11, 23, 1, 2, 3, 4e6, time.UTC)
	got := string(syslogLine([]byte(`level=ERROR msg="failed"`), at))
	if !strings.HasPrefix(got, "<27>1 2026-11-23T01:02:03.004Z ") || !strings.HasSuffix(got, ` cistern - - - level=ERROR msg="failed"`) {
		t.Errorf("%q", got)
	}
	if n := len(syslogLine(bytes.Repeat([]byte("x"), 1<<16), at)); n > 2200 {
		t.Errorf("a line of %d bytes", n)
	}
}

func TestFollow(t *testing.T) {
	r := NewRing(100, nil)
	_, _ = r.Write([]byte("before\n"))
	lines := r.Follow()
	_, _ = r.Write([]byte("after\n"))
	if a, b := string(<-lines), string(<-lines); a != "before\n" || b != "after\n" {
		t.Errorf("%q, %q", a, b)
	}
	for range 1000 { // nobody reads, and nobody waits
		_, _ = r.Write([]byte("more\n"))
	}
}

func TestSecureBoot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "v")
	for value, want := range map[string]string{"": firmwareUEFI, "\x06\x00\x00\x00\x01": firmwareSecure, "\x06\x00\x00\x00\x00": firmwareUEFI} {
		if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := secureBoot(file); got != want {
			t.Errorf("% x: %s", value, got)
		}
	}
}

// TestAlive: the watchdog is fed while the health is judged.
func TestAlive(t *testing.T) {
	b := newBench(t, Boot{Slot: "a"})
	b.started = time.Now().Add(-time.Hour)
	b.judged.Store(int64(time.Hour - time.Second))
	if !b.alive() {
		t.Error("judged a second ago, and not alive")
	}
	b.judged.Store(int64(time.Hour - 2*stuck))
	if b.alive() {
		t.Error("not judged for long, and alive")
	}
}

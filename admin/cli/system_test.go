package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// standIn is an appliance that notes its orders.
type standIn struct {
	*httptest.Server
	orders []client.SystemOrder
	file   string
}

func newStandIn(t *testing.T) *standIn {
	a := &standIn{}
	answer := func(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) } // the test sees it missing
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/system", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, client.System{
			Version: "1.1", Slot: "b", Boots: 7, Waiting: "an address (DHCP)", Now: time.Unix(1e9, 0), TimeServers: []string{"pool.ntp.org"}, MemAvailable: 6e8, MemTotal: 1e9,
			Channel: "https://example.org/l.json", At: "03:30",
			Slots: []client.Slot{{Slot: "a", State: "failed", Version: "1.2", Starts: 3, Reason: "it hung \x1b[31m"}, {Slot: "b", State: "running", Version: "1.1", Starts: 4}},
			Network: client.Network{Name: "depot-3", Links: []client.Link{
				{Name: "br0.20", Kind: "VLAN 20", Up: true, Addresses: []string{"192.0.2.10/24"}}, {Name: "eth0", Kind: "wired", Bridge: "br0"},
			}},
		})
	})
	mux.HandleFunc("GET /api/v1/system/disks", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, []client.Disk{{Name: "sda", Model: "Old", Bytes: 64e9, Holds: []string{"sda1: root (9 MB)"}}, {Name: "sdb", Own: true}, {Name: "sdc", TooSmall: true}})
	})
	mux.HandleFunc("GET /api/v1/system/log", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("unit") != "none" {
			_, _ = io.WriteString(w, "asked "+r.URL.RawQuery+"\nlevel=ERROR \x1b\n")
		}
	})
	mux.HandleFunc("POST /api/v1/system/order", func(w http.ResponseWriter, r *http.Request) {
		var o client.SystemOrder
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			t.Error(err)
		}
		a.orders = append(a.orders, o)
		switch {
		case o.Do == client.CheckChannel:
			answer(w, client.Update{State: "current", Reason: "1.1 runs, and 1.1 is not newer"})
		case o.At == "25:00":
			w.WriteHeader(http.StatusUnprocessableEntity)
			answer(w, map[string]string{"detail": `update.toml: at: "25:00" is no time of the day, such as 03:30`})
		default:
			answer(w, client.Update{State: "done"})
		}
	})
	mux.HandleFunc("POST /api/v1/system/update", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		a.file = string(body)
		answer(w, client.Update{Version: "1.3", Slot: "a", State: "trial"})
	})
	logins := client.SSH{On: true, HostKey: "SHA256:box", Keys: []client.SSHKey{{Fingerprint: "SHA256:a+b/c", Kind: "ssh-ed25519", Comment: "ann"}}}
	mux.HandleFunc("POST /api/v1/system/ssh-keys", func(w http.ResponseWriter, r *http.Request) {
		var l client.SSHLine
		if err := json.NewDecoder(r.Body).Decode(&l); err != nil {
			t.Error(err)
		}
		a.file = l.Key
		answer(w, logins)
	})
	mux.HandleFunc("DELETE /api/v1/system/ssh-keys", func(w http.ResponseWriter, r *http.Request) {
		a.file = r.URL.Query().Get("fingerprint")
		answer(w, client.SSH{})
	})
	a.Server = httptest.NewServer(mux)
	t.Cleanup(a.Close)
	return a
}

func (a *standIn) do(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	env := Env{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
	code = Run(context.Background(), append([]string{"--box", a.URL, "--token", token}, args...), env)
	return code, out.String(), errs.String()
}

func TestSystemShows(t *testing.T) {
	a := newStandIn(t)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"system", "status"}, []string{
			"1.1 in slot b, start 7: waits for an address (DHCP)", "failed", "it hung ?[31m", "br0.20", "192.0.2.10/24", "wired, port of br0", "depot-3.local", "by DHCP",
			"nobody yet; asked: pool.ntp.org", "600 MB of 1.00 GB", "the ring alone", "looked at each day at 03:30 UTC",
		}},
		{[]string{"update"}, []string{"1.1 in slot b", "it hung"}},
		{[]string{"system", "schedule"}, []string{"updates come from https://example.org/l.json, looked at each day at 03:30 UTC"}},
		{[]string{"system", "disks"}, []string{"sda Old 64.0 GB: sda1: root (9 MB)", "the system runs from it", "too small"}},
		{[]string{"system", "log", "--level", "warn", "--unit", "cisternd", "-n", "5"}, []string{"asked level=warn&lines=5&unit=cisternd", "level=ERROR ?"}},
		{[]string{"system", "log", "-n", "0"}, []string{"asked \n"}},
	} {
		code, out, errs := a.do("", c.args...)
		for _, want := range c.want {
			if code != Done || !strings.Contains(out, want) {
				t.Errorf("%v: exit %d, %q is missing in\n%s%s", c.args, code, want, out, errs)
			}
		}
		if code, out, errs := a.do("", append(c.args, "--json")...); code != Done || !json.Valid([]byte(out)) {
			t.Errorf("%v --json: exit %d, said %q %q", c.args, code, out, errs)
		}
	}
	if code, out, errs := a.do("", "system", "log", "--unit", "none"); code != Done || out != "" || !strings.Contains(errs, "no line") {
		t.Errorf("a log without lines: %d %q %q", code, out, errs)
	}
	if code, _, errs := a.do("", "system", "log", "--level", "loud"); code != Misused || !strings.Contains(errs, "--level") {
		t.Errorf("a level that there is not: %d %q", code, errs)
	}
	if len(a.orders) != 0 {
		t.Errorf("showing has ordered %+v", a.orders)
	}
}

// What erases or turns off asks first.
func TestSystemOrders(t *testing.T) {
	a := newStandIn(t)
	const url = "https://example.org/l.json"
	for _, c := range []struct {
		stdin string
		args  []string
		want  *client.SystemOrder // nil: nothing is ordered
		said  string
	}{
		{"", []string{"restart"}, &client.SystemOrder{Do: client.Restart}, "The box restarts."},
		{"", []string{"check"}, &client.SystemOrder{Do: client.CheckChannel}, "1.1 runs, and 1.1 is not newer"},
		{"n\n", []string{"power-off"}, nil, "press the machine's button"},
		{"y\n", []string{"power-off"}, &client.SystemOrder{Do: client.PowerOff}, "turns itself off"},
		{"", []string{"reset"}, nil, "nothing was done"},
		{"", []string{"reset", "--yes"}, &client.SystemOrder{Do: client.Reset, Erase: true}, "first day"},
		{"n\n", []string{"install", "sda"}, nil, "erases all that is on sda Old 64.0 GB: sda1: root (9 MB)"},
		{"yes\n", []string{"install", "sda"}, &client.SystemOrder{Do: client.Install, Disk: "sda", Erase: true}, "Take the stick out"},
		{"", []string{"install", "sdz", "--yes"}, nil, `no disk "sdz"`},
		{"", []string{"schedule", "--at", "04:00"}, &client.SystemOrder{Do: client.Schedule, Channel: url, At: "04:00"}, "each day at 04:00 UTC"},
		{"", []string{"schedule", "--at", ""}, &client.SystemOrder{Do: client.Schedule, Channel: url}, "when asked"},
		{"", []string{"schedule", "--channel", "http://a.test/l.json"}, &client.SystemOrder{Do: client.Schedule, Channel: "http://a.test/l.json", At: "03:30"}, "http://a.test/l.json"},
		{"", []string{"schedule", "--off"}, &client.SystemOrder{Do: client.Schedule}, "by hand alone"},
		{"", []string{"schedule", "--off", "--at", "03:00"}, nil, "--off"},
		{"", []string{"schedule", "--at", "25:00"}, &client.SystemOrder{Do: client.Schedule, Channel: url, At: "25:00"}, "such as 03:30"},
	} {
		a.orders = nil
		_, out, errs := a.do(c.stdin, append([]string{"system"}, c.args...)...)
		ordered := len(a.orders) == 1 && c.want != nil && a.orders[0] == *c.want || len(a.orders) == 0 && c.want == nil
		if !ordered || !strings.Contains(out+errs, c.said) {
			t.Errorf("%v: ordered %+v, said %q %q", c.args, a.orders, out, errs)
		}
	}
}

func TestUpdateFromStandardInput(t *testing.T) {
	a := newStandIn(t)
	if code, out, errs := a.do("signed", "update", "-"); code != Done || a.file != "signed" || !strings.Contains(out, "1.3 is in slot a") {
		t.Errorf("%d %q %q, sent %q", code, out, errs, a.file)
	}
}

func TestSSHKeys(t *testing.T) {
	a := newStandIn(t)
	const line = "ssh-ed25519 AAAA ann"
	file := filepath.Join(t.TempDir(), "id.pub")
	if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		stdin string
		args  []string
		sent  string
		said  string
	}{
		{"", []string{"add", file}, line, "the box's own key: SHA256:box"},
		{"", []string{"add", line}, line, "SHA256:a+b/c"},
		{"", []string{"add", "ssh-ed25519", "AAAA", "ann"}, line, "Kept."},
		{line + "\n", []string{"add", "-"}, line, "Kept."},
		{"", []string{"add", file + "x"}, "", "no such file"},
		{"", []string{"remove", "SHA256:a+b/c"}, "SHA256:a+b/c", "SSH is off"},
		{"", []string{"list"}, "", "SSH is off"},
		{"", nil, "", "SSH is off"},
	} {
		a.file = ""
		_, out, errs := a.do(c.stdin, append([]string{"system", "ssh-key"}, c.args...)...)
		if a.file != c.sent || !strings.Contains(out+errs, c.said) {
			t.Errorf("%v: sent %q, said %q %q", c.args, a.file, out, errs)
		}
	}
}

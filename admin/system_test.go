package admin

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

// appliance takes one file and refuses the rest.
type appliance struct{}

func (appliance) State(context.Context) (client.System, error) {
	return client.System{
		Version: "1.0", Slot: "a", Healthy: true, Boots: 7, Now: time.Unix(1e9, 0), TimeFrom: "ntp.test", MemTotal: 1e9, MemAvailable: 6e8, Syslog: "logs.test",
		Last: &client.Update{Version: "1.1", State: "failed", Reason: "1.1 was started 3 times; it came as far as: <b>data</b> mounted"},
		Slots: []client.Slot{
			{Slot: "a", Version: "1.0", State: "running", Starts: 4}, {Slot: "b", Version: "1.1", State: "failed", Starts: 3, Reason: "the network never came up"},
		},
		Network: client.Network{Name: "depot-3", Fixed: true, Gateways: []string{"192.0.2.1"}, DNS: []string{"192.0.2.53"}, Links: []client.Link{
			{Name: "br0", Kind: "bridge", Up: true, Addresses: []string{"192.0.2.10/24"}}, {Name: "br0.20", Kind: "VLAN 20", Addresses: []string{}},
		}},
		Channel: "https://example.org/latest.json", At: "03:30",
		SSH: client.SSH{On: true, HostKey: "SHA256:box", Keys: []client.SSHKey{{Fingerprint: "SHA256:a+b/c", Kind: "ssh-ed25519", Comment: "ann<b>"}}},
	}, nil
}

// sampleLog is what an appliance and its daemon write.
const sampleLog = `time=1 level=INFO msg="started system"
time=2 level=INFO msg="opened panel" unit=cisternd
time=3 level=WARN msg="refused an update" err="a <script> unit=x"
time=4 level=ERROR msg="failed" unit=cisternd
goroutine 1 [running]: unit=cisternd
{"level":"DEBUG","msg":"x"} unit=cisternd
a line
`

func (appliance) Log(context.Context) ([]byte, error) { return []byte(sampleLog), nil }

func (appliance) Update(_ context.Context, file io.Reader) (client.Update, error) {
	body, err := io.ReadAll(file)
	if string(body) != "signed" {
		return client.Update{State: "refused", Reason: "the signature is wrong"}, err
	}
	return client.Update{State: "trial", Version: "1.1"}, err
}

func (appliance) Disks(context.Context) ([]client.Disk, error) {
	return []client.Disk{
		{Name: "sda", Bytes: 1 << 30, Holds: []string{"sda1: root"}}, {Name: "sdb", Own: true, Holds: []string{}}, {Name: "sdc", TooSmall: true, Holds: []string{}},
	}, nil
}

func (appliance) AddSSHKey(_ context.Context, line string) error {
	if line != "ssh-ed25519 AAAA ann" {
		return errors.New("this is no public key that the box takes")
	}
	return nil
}

func (appliance) RemoveSSHKey(_ context.Context, fingerprint string) error {
	if fingerprint != "SHA256:a+b/c" {
		return errors.New("no key has this fingerprint")
	}
	return nil
}

func (appliance) Order(_ context.Context, o client.SystemOrder) (client.Update, error) {
	switch {
	case o.Disk == "sdb":
		return client.Update{State: "refused", Reason: "there is no such disk"}, nil
	case o.Do == client.CheckChannel:
		return client.Update{State: "current", Reason: "1.0 runs, and 1.0 is not newer"}, nil
	case o.Do == client.Schedule && o.At != "" && o.Channel == "":
		return client.Update{State: "refused", Reason: "a time needs a channel"}, nil
	}
	return client.Update{State: "done"}, nil
}

func TestSystem(t *testing.T) {
	parts := sample(time.Now())
	s := newServer(t, Config{}, parts)
	query(t, s, "GET", "/api/v1/system", "", 503)
	query(t, s, "POST", "/api/v1/system/update", "x", 503)
	query(t, s, "GET", "/api/v1/system/log", "", 503)
	query(t, s, "POST", "/api/v1/system/ssh-keys", `{"key":"x"}`, 503)

	parts.System = appliance{}
	s = newServer(t, Config{}, parts)
	if w := request(s, "POST", "/api/v1/system/update", "signed"); w.Code != 401 {
		t.Errorf("a stranger's update was answered %d", w.Code)
	}
	if got := query(t, s, "GET", "/api/v1/system", "", 200); got["slot"] != "a" {
		t.Errorf("%v", got)
	}
	if w := request(s, "GET", "/api/v1/system/log", "", "Authorization", bearer(t, s)); w.Body.String() != sampleLog {
		t.Errorf("log: %d %q", w.Code, w.Body)
	}
	listening := httptest.NewServer(s)
	defer listening.Close()
	_, token, _ := strings.Cut(bearer(t, s), " ")
	box, err := client.New(client.Config{Box: listening.URL, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	if u, err := box.Update(t.Context(), strings.NewReader("signed")); err != nil || u.Version != "1.1" {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := box.Update(t.Context(), strings.NewReader("forged")); err == nil || !strings.Contains(err.Error(), "signature is wrong") {
		t.Errorf("a refusal: %v", err)
	}
	for order, want := range map[client.SystemOrder]string{
		{Do: client.Restart}:                             "",
		{Do: client.PowerOff}:                            "",
		{Do: client.Schedule, At: "03:30"}:               "needs a channel",
		{Do: client.Schedule}:                            "",
		{Do: client.Reset}:                               "erase",
		{Do: client.Reset, Erase: true}:                  "",
		{Do: client.Install, Disk: "sda"}:                "erase",
		{Do: client.Install, Disk: "sda", Erase: true}:   "",
		{Do: client.Install, Disk: "sdb", Erase: true}:   "no such disk",
		{Do: "format everything", Disk: "", Erase: true}: "no order",
	} {
		if u, err := box.Order(t.Context(), order); want == "" && (err != nil || u.State != "done") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: %+v, %v", order, u, err)
		}
	}
	if disks, err := box.Disks(t.Context()); err != nil || len(disks) != 3 || disks[0].Holds[0] != "sda1: root" {
		t.Errorf("%+v, %v", disks, err)
	}
	if got, err := box.AddSSHKey(t.Context(), "ssh-ed25519 AAAA ann"); err != nil || !got.On || got.Keys[0].Comment != "ann<b>" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := box.AddSSHKey(t.Context(), "nonsense"); err == nil || !strings.Contains(err.Error(), "no public key") {
		t.Errorf("a key that is none: %v", err)
	}
	if _, err := box.RemoveSSHKey(t.Context(), "SHA256:a+b/c"); err != nil {
		t.Error(err)
	}
	if _, err := box.RemoveSSHKey(t.Context(), "SHA256:x"); err == nil || !strings.Contains(err.Error(), "fingerprint") {
		t.Errorf("a key that is not there: %v", err)
	}
	if text, err := box.SystemLog(t.Context(), client.LogQuery{Level: "error", Unit: "cisternd", Lines: 1}); err != nil || text != "goroutine 1 [running]: unit=cisternd\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := box.SystemLog(t.Context(), client.LogQuery{Level: "loud"}); err == nil || !strings.Contains(err.Error(), "debug, info, warn, error") {
		t.Errorf("a level that there is not: %v", err)
	}
	if sys, err := box.System(t.Context()); err != nil || !sys.Healthy {
		t.Errorf("%+v, %v", sys, err)
	}
}

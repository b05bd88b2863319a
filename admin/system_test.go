package admin

import (
	"context"
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
	return client.System{Version: "1.0", Slot: "a", Healthy: true}, nil
}

func (appliance) Log(context.Context) ([]byte, error) { return []byte("a line\n"), nil }

func (appliance) Update(_ context.Context, file io.Reader) (client.Update, error) {
	body, err := io.ReadAll(file)
	if string(body) != "signed" {
		return client.Update{State: "refused", Reason: "the signature is wrong"}, err
	}
	return client.Update{State: "trial", Version: "1.1"}, err
}

func (appliance) Disks(context.Context) ([]client.Disk, error) {
	return []client.Disk{{Name: "sda", Bytes: 1 << 30, Holds: []string{"sda1: root"}}}, nil
}

func (appliance) Order(_ context.Context, o client.SystemOrder) (client.Update, error) {
	if o.Disk == "sdb" {
		return client.Update{State: "refused", Reason: "there is no such disk"}, nil
	}
	return client.Update{State: "done"}, nil
}

func TestSystem(t *testing.T) {
	parts := sample(time.Now())
	s := newServer(t, Config{}, parts)
	query(t, s, "GET", "/api/v1/system", "", 503)
	query(t, s, "POST", "/api/v1/system/update", "x", 503)
	query(t, s, "GET", "/api/v1/system/log", "", 503)

	parts.System = appliance{}
	s = newServer(t, Config{}, parts)
	if w := request(s, "POST", "/api/v1/system/update", "signed"); w.Code != 401 {
		t.Errorf("a stranger's update was answered %d", w.Code)
	}
	if got := query(t, s, "GET", "/api/v1/system", "", 200); got["slot"] != "a" {
		t.Errorf("%v", got)
	}
	if w := request(s, "GET", "/api/v1/system/log", "", "Authorization", bearer(t, s)); w.Body.String() != "a line\n" {
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
	if disks, err := box.Disks(t.Context()); err != nil || len(disks) != 1 || disks[0].Holds[0] != "sda1: root" {
		t.Errorf("%+v, %v", disks, err)
	}
	if sys, err := box.System(t.Context()); err != nil || !sys.Healthy {
		t.Errorf("%+v, %v", sys, err)
	}
}

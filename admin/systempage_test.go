package admin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
)

func TestLogLines(t *testing.T) {
	for _, c := range []struct {
		q    client.LogQuery
		want string
	}{
		{client.LogQuery{}, "1234567"},
		{client.LogQuery{Lines: 2}, "67"},
		{client.LogQuery{Level: "warn"}, "3457"}, // a trace goes with its error; so does what follows a warning
		{client.LogQuery{Level: "error"}, "45"},
		{client.LogQuery{Unit: "cisternd"}, "2456"},
		{client.LogQuery{Unit: "system", Level: "info"}, "137"},
		{client.LogQuery{Unit: "x"}, ""},
	} {
		all := strings.Split(sampleLog, "\n")
		got := ""
		for _, line := range logLines([]byte(sampleLog), c.q) {
			for i, l := range all {
				if l == line {
					got += string(rune('1' + i))
				}
			}
		}
		if got != c.want {
			t.Errorf("%+v: lines %s, want %s", c.q, got, c.want)
		}
	}
}

func TestSystemPage(t *testing.T) {
	parts := sample(time.Now())
	s := newServer(t, Config{Version: "9.9"}, parts)
	get := func(query string) (int, string) {
		w := request(s, "GET", "/system"+query, "", "Authorization", bearer(t, s))
		return w.Code, strings.ReplaceAll(w.Body.String(), "\u00a0", " ")
	}
	if code, page := get(""); code != 200 || !strings.Contains(page, "not an appliance") || !strings.Contains(page, "9.9") || strings.Contains(page, "Factory") {
		t.Errorf("where there is no appliance: %d\n%s", code, page)
	}
	if w := send(s, "/system", url.Values{"do": {"restart"}}, "Authorization", bearer(t, s)); w.Code != 503 || !strings.Contains(w.Body.String(), "no appliance") {
		t.Errorf("an order where there is no appliance: %d", w.Code)
	}
	parts.System = appliance{}
	s = newServer(t, Config{}, parts)
	for query, wants := range map[string][]string{
		"": {
			"It works.", "1.0 in slot a", "the network never came up", "&lt;b&gt;data", "depot-3.local", "192.0.2.10/24", "VLAN 20", "fixed, by", "192.0.2.53", "logs.test",
			"ntp.test", "600 MB of 1.00 GB", "03:30", "sda1: root", "Type <b>sda</b>", "too small", "started from it", "opened panel", "a &lt;script&gt;", "&amp;download",
			"SHA256:box", "ann&lt;b&gt;", `value="SHA256:a&#43;b/c"`,
		},
		"?level=error&unit=cisternd": {`<option selected>error`, "goroutine 1", "level=error&amp;unit=cisternd"},
		"?level=loud":                {"no level", "It works."},
		"?done=restart":              {"The box restarts.", `data-wait="/system"`},
		"?done=<b>":                  {"It works."},
	} {
		code, page := get(query)
		for _, want := range wants {
			if code != 200 || !strings.Contains(page, want) {
				t.Errorf("%s: %d, %q is missing in\n%s", query, code, want, page)
			}
		}
		if strings.Contains(page, "<b>data") || strings.Contains(page, "a <script>") || query != "" && strings.Contains(page, "opened panel") && strings.Contains(query, "error") {
			t.Errorf("%s: it shows what it should not\n%s", query, page)
		}
	}
	if w := request(s, "GET", "/system", ""); w.Code != 303 {
		t.Errorf("without a login: %d", w.Code)
	}
	if w := request(s, "GET", "/", "", "Authorization", bearer(t, s)); !strings.Contains(w.Body.String(), `href="/system"`) {
		t.Error("the panel does not lead there")
	}
	if w := request(s, "GET", "/api/v1/system/log?level=info&download", "", "Authorization", bearer(t, s)); !strings.HasPrefix(w.Header().Get("Content-Disposition"), "attachment") {
		t.Error("a log to keep is not one")
	}
}

// A form does what the API does; what erases wants its word.
func TestSystemForms(t *testing.T) {
	parts := sample(time.Now())
	parts.System = appliance{}
	s := newServer(t, Config{}, parts)
	for _, c := range []struct {
		form   string
		status int
		want   string // of the page, or of where it leads
	}{
		{"do=restart", 303, "done=restart"},
		{"do=power-off", 303, "done=power-off"},
		{"do=check-channel", 303, "done=current"},
		{"do=schedule&channel=https://example.org/l.json&at=03:30", 303, "done=schedule"},
		{"do=schedule&at=03:30", 422, "a time needs a channel"},
		{"do=reset", 422, "type the word erase"},
		{"do=reset&typed=yes", 422, "type the word erase"},
		{"do=reset&typed=+Erase", 303, "done=reset"},
		{"do=install&disk=sda", 422, "type the name of the disk, sda"},
		{"do=install&disk=sda&typed=sdb", 422, "Nothing was erased"},
		{"do=install&disk=&typed=", 422, "Nothing was erased"},
		{"do=install&disk=sda&typed=sda", 303, "done=install"},
		{"do=install&disk=sdb&typed=sdb", 422, "there is no such disk"},
		{"do=ssh-add&key=ssh-ed25519+AAAA+ann", 303, "done=ssh-add"},
		{"do=ssh-add&key=x", 422, "no public key"},
		{"do=ssh-remove&fingerprint=SHA256:a%2Bb/c", 303, "done=ssh-remove"},
		{"do=ssh-remove&fingerprint=x", 422, "no key has this fingerprint"},
		{"do=dance", 422, "no such button"},
		{"", 422, "no such button"},
	} {
		w := request(s, "POST", "/system", c.form, "Content-Type", formType, "Authorization", bearer(t, s))
		if said := w.Body.String() + w.Header().Get("Location"); w.Code != c.status || !strings.Contains(said, c.want) {
			t.Errorf("%s: %d %s", c.form, w.Code, said)
		}
	}
	for _, c := range []struct {
		name, file, body string
		status           int
		want             string
	}{
		{"file", "x.update", "signed", 303, "done=update"},
		{"file", "x.update", "forged", 422, "the signature is wrong"},
		{"file", "", "", 422, "choose the .update file"},
		{"other", "x.update", "signed", 422, "choose the .update file"},
	} {
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		part, err := form.CreateFormFile(c.name, c.file)
		if err == nil {
			_, err = io.WriteString(part, c.body)
		}
		if err = errors.Join(err, form.Close()); err != nil {
			t.Fatal(err)
		}
		w := request(s, "POST", "/system", body.String(), "Content-Type", form.FormDataContentType(), "Authorization", bearer(t, s))
		if said := w.Body.String() + w.Header().Get("Location"); w.Code != c.status || !strings.Contains(said, c.want) {
			t.Errorf("%+v: %d %s", c, w.Code, said)
		}
		cut := request(s, "POST", "/system", body.String()[:body.Len()-20], "Content-Type", form.FormDataContentType(), "Authorization", bearer(t, s))
		if cut.Code != 422 {
			t.Errorf("%+v, cut: %d", c, cut.Code)
		}
	}
	cookie := setUp(t, s, "correct horse battery")
	if w := request(s, "POST", "/system", "do=restart", "Content-Type", formType, "Cookie", cookie, "Sec-Fetch-Site", "cross-site"); w.Code != 403 {
		t.Errorf("forged by another site: %d", w.Code)
	}
}

// mute is an appliance that does not answer.
type mute struct{ appliance }

func (mute) State(context.Context) (client.System, error) {
	return client.System{}, errors.New("connection refused")
}

func TestSystemPageOfAMuteAppliance(t *testing.T) {
	parts := sample(time.Now())
	parts.System = mute{}
	s := newServer(t, Config{}, parts)
	if w := request(s, "GET", "/system", "", "Authorization", bearer(t, s)); w.Code != 200 || !strings.Contains(w.Body.String(), "does not answer") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

package admin

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hand is what a person does on the page: it sends a file that is refused, and,
// once it was told why, one that is not.
const hand = `"use strict";
const form = document.querySelector("form[data-upload]");
if (form) {
  const fault = form.querySelector(".problem");
  const choose = (text) => {
    const files = new DataTransfer();
    files.items.add(new File([text], "x.update"));
    form.querySelector("input[type=file]").files = files.files;
    form.querySelector("button").click();
  };
  new MutationObserver(() => {
    if (fault.hidden || document.title === "refused") return;
    document.title = "refused";
    fetch("/told?" + encodeURIComponent(fault.textContent)).then(() => choose("signed"));
  }).observe(fault, { attributes: true });
  if (!location.search) choose("forged");
}
`

// TestSystemPageInABrowser has Chromium use the page under the policy that it is
// served with: the script sends an update, shows why it was refused, and leads on
// when it was not.
func TestSystemPageInABrowser(t *testing.T) {
	if _, err := exec.LookPath("chromium"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("chromium is not installed (hwtest/setup.sh)")
		}
		t.Skip("chromium is not installed (hwtest/setup.sh)")
	}
	parts := sample(time.Now())
	parts.System = appliance{}
	s := newServer(t, Config{}, parts)
	token := bearer(t, s)
	told := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Authorization", token) // as if logged in
		switch r.URL.Path {
		case "/told":
			select {
			case told <- r.URL.RawQuery:
			default:
			}
		case "/hand.js":
			w.Header().Set("Content-Type", "text/javascript")
			fmt.Fprint(w, hand)
		case "/system":
			page := httptest.NewRecorder()
			s.ServeHTTP(page, r)
			for name, values := range page.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(page.Code)
			fmt.Fprint(w, strings.Replace(page.Body.String(), "</head>", `<script src="/hand.js" defer></script></head>`, 1))
		default:
			s.ServeHTTP(w, r)
		}
	}))
	defer server.Close()
	var errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+filepath.Join(t.TempDir(), "c"),
		"--enable-logging=stderr", "--virtual-time-budget=4000", "--timeout=60000", "--dump-dom", server.URL+"/system")
	cmd.Stderr = &errs
	page, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	select {
	case why := <-told:
		if !strings.Contains(why, "signature%20is%20wrong") {
			t.Errorf("a refused update was told as %q", why)
		}
	default:
		t.Errorf("the refusal was not shown\n%s", &errs)
	}
	if !bytes.Contains(page, []byte("the box restarts into it")) && !bytes.Contains(page, []byte("The box restarts into it")) {
		t.Errorf("after an update it shows\n%s\n%s", page, &errs)
	}
	if bytes.Contains(errs.Bytes(), []byte("Content Security Policy")) {
		t.Errorf("the page breaks its own policy:\n%s", &errs)
	}
}

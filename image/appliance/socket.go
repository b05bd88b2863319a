package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// serve answers the daemon on a socket that nobody else can open, until ctx is
// done.
func (b *Box) serve(ctx context.Context) {
	if err := b.listen(ctx); err != nil && ctx.Err() == nil {
		b.log.Error("failed to answer the daemon", "err", err)
	}
}

func (b *Box) listen(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(Socket), 0o755); err != nil {
		return err
	}
	listener, err := net.Listen("unix", Socket)
	if err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(Socket, 0o600), os.Chown(Socket, daemonID, daemonID)); err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{Handler: b.handler(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	return server.Serve(listener)
}

func (b *Box) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, b.Report()) })
	mux.HandleFunc("GET /log", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b.ring.Bytes()) })
	mux.HandleFunc("POST /restart", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, b.State())
		b.restartSoon("somebody asked for it")
	})
	mux.HandleFunc("POST /power-off", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, reply{})
		b.restartSoon(Off)
	})
	mux.HandleFunc("POST /schedule", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		done(w, b.Schedule(q.Get("channel"), q.Get("at")))
	})
	mux.HandleFunc("POST /ssh-keys", func(w http.ResponseWriter, r *http.Request) { done(w, b.AddKey(r.URL.Query().Get("key"))) })
	mux.HandleFunc("DELETE /ssh-keys", func(w http.ResponseWriter, r *http.Request) {
		done(w, b.RemoveKey(r.URL.Query().Get("fingerprint")))
	})
	mux.HandleFunc("GET /disks", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, b.Disks()) })
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, r *http.Request) { done(w, b.Reset(r.Context())) })
	mux.HandleFunc("POST /install", func(w http.ResponseWriter, r *http.Request) {
		done(w, b.Install(r.Context(), r.URL.Query().Get("disk")))
	})
	mux.HandleFunc("POST /check", func(w http.ResponseWriter, r *http.Request) {
		o, err := b.Check(r.Context())
		if err != nil && o.State == "" {
			o = Outcome{State: "refused", Reason: err.Error()}
		}
		answer(w, http.StatusOK, o)
	})
	mux.HandleFunc("POST /update", func(w http.ResponseWriter, r *http.Request) {
		o, err := b.Update(r.Context(), r.Body)
		switch {
		case errors.Is(err, ErrBusy), errors.Is(err, ErrOnTrial), errors.Is(err, ErrNoData):
			answer(w, http.StatusConflict, Outcome{State: "refused", Reason: err.Error()})
		case err != nil:
			answer(w, http.StatusUnprocessableEntity, o)
		default:
			answer(w, http.StatusOK, o)
		}
	})
	return mux
}

// reply says that something was done, or why not.
type reply struct {
	Fault string `json:"fault,omitempty"`
}

func done(w http.ResponseWriter, err error) {
	if err != nil {
		answer(w, http.StatusUnprocessableEntity, reply{err.Error()})
		return
	}
	answer(w, http.StatusOK, reply{})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // who asked has gone
}

// Remote is a Box as another program of the same machine sees it. It is safe for
// concurrent use.
type Remote struct{ client http.Client }

// Dial makes a Remote for a socket; it connects with each call.
func Dial(socket string) *Remote {
	return &Remote{http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// Report asks how the Box is.
func (r *Remote) Report(ctx context.Context) (s Report, err error) {
	err = r.call(ctx, http.MethodGet, "/state", nil, &s)
	return s, err
}

// Restart asks for a restart of the machine.
func (r *Remote) Restart(ctx context.Context) error {
	return r.call(ctx, http.MethodPost, "/restart", nil, &State{})
}

// PowerOff asks for the machine to be turned off.
func (r *Remote) PowerOff(ctx context.Context) error { return r.do(ctx, "/power-off") }

// Schedule sets where updates come from and when; see [Box.Schedule].
func (r *Remote) Schedule(ctx context.Context, channel, at string) error {
	return r.do(ctx, "/schedule?"+url.Values{"channel": {channel}, "at": {at}}.Encode())
}

// AddKey lets a key in by SSH; see [Box.AddKey].
func (r *Remote) AddKey(ctx context.Context, line string) error {
	return r.do(ctx, "/ssh-keys?key="+url.QueryEscape(line))
}

// RemoveKey lets a key in no longer; see [Box.RemoveKey].
func (r *Remote) RemoveKey(ctx context.Context, fingerprint string) error {
	return r.ask(ctx, http.MethodDelete, "/ssh-keys?fingerprint="+url.QueryEscape(fingerprint))
}

// Disks lists the disks of the machine.
func (r *Remote) Disks(ctx context.Context) (disks []Disk, err error) {
	err = r.call(ctx, http.MethodGet, "/disks", nil, &disks)
	return disks, err
}

// Install copies the running system to a disk; see [Box.Install].
func (r *Remote) Install(ctx context.Context, disk string) error {
	return r.do(ctx, "/install?disk="+url.QueryEscape(disk))
}

// Reset asks for a factory reset.
func (r *Remote) Reset(ctx context.Context) error { return r.do(ctx, "/reset") }

// Check looks at the channel; see [Box.Check]. A refusal is an [Outcome].
func (r *Remote) Check(ctx context.Context) (o Outcome, err error) {
	err = r.call(ctx, http.MethodPost, "/check", nil, &o)
	return o, err
}

// ErrRefused is what the Box would not do, with its reason.
var ErrRefused = errors.New("the system refused")

func (r *Remote) do(ctx context.Context, path string) error {
	return r.ask(ctx, http.MethodPost, path)
}

func (r *Remote) ask(ctx context.Context, method, path string) error {
	var said reply
	if err := r.call(ctx, method, path, nil, &said); err != nil {
		return err
	}
	if said.Fault != "" {
		return fmt.Errorf("%w: %s", ErrRefused, said.Fault)
	}
	return nil
}

// Log gives the last lines that the system wrote.
func (r *Remote) Log(ctx context.Context) ([]byte, error) {
	body, err := r.open(ctx, http.MethodGet, "/log", nil)
	if err != nil {
		return nil, err
	}
	defer body.Body.Close()
	return io.ReadAll(io.LimitReader(body.Body, 8<<20))
}

// Update hands over an update file. A refusal is an [Outcome] whose State is
// "refused", not an error.
func (r *Remote) Update(ctx context.Context, file io.Reader) (o Outcome, err error) {
	err = r.call(ctx, http.MethodPost, "/update", file, &o)
	return o, err
}

func (r *Remote) open(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://box"+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask the system: %w", err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the system: %w", err)
	}
	return resp, nil
}

func (r *Remote) call(ctx context.Context, method, path string, body io.Reader, into any) error {
	resp, err := r.open(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(into); err != nil {
		return fmt.Errorf("ask the system: %w", err)
	}
	return nil
}

package multicast

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cistern-edge/cistern/multicast/announce"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// enrolmentFile is what an agent keeps of its enrolment.
type enrolmentFile struct {
	Version int `json:"version"`
	// Box is its URL, http://host:port.
	Box     string               `json:"box"`
	Pin     announce.Fingerprint `json:"pin"`
	Public  ed25519.PublicKey    `json:"public_key"`
	BoxName string               `json:"box_name"`
	Name    string               `json:"name"`
	Node    norm.NodeID          `json:"node"`
	Secret  Secret               `json:"key"`
	Channel Channel              `json:"channel"`
}

// check reports what is wrong with an enrolment.
func (f *enrolmentFile) check() error {
	switch {
	case f.Version != 1:
		return fmt.Errorf("version %d, want 1", f.Version)
	case len(f.Public) != ed25519.PublicKeySize || announce.FingerprintOf(f.Public) != f.Pin:
		return fmt.Errorf("public key: %w", announce.ErrWrongKey)
	case !f.Node.Valid() || f.Node == boxNode:
		return fmt.Errorf("node id %d", f.Node)
	}
	if _, err := secureURL(f.Box); err != nil {
		return err
	}
	return f.Channel.check()
}

// secureURL is the address of the desk of the box at an http URL: the same port
// speaks TLS too.
func secureURL(box string) (string, error) {
	u, err := url.Parse(box)
	if err != nil {
		return "", fmt.Errorf("URL of the box: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return "", fmt.Errorf("URL of the box: %q is not like http://box:3142", box)
	}
	port := u.Port()
	if port == "" {
		port = "3142"
	}
	return "https://" + net.JoinHostPort(u.Hostname(), port), nil
}

// Line is an agent's channel to the desk of its box, pinned to the box's key.
// It is safe for concurrent use.
type Line struct {
	file   enrolmentFile // Channel aside, it does not change
	desk   string        // https URL
	client *http.Client

	// mu guards what follows.
	mu      sync.Mutex
	channel Channel
	changed chan struct{} // closed and replaced when the channel changes
}

func newLine(f enrolmentFile, client *http.Client) (*Line, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	desk, err := secureURL(f.Box)
	if err != nil {
		return nil, err
	}
	return &Line{file: f, desk: desk, client: client, channel: f.Channel, changed: make(chan struct{})}, nil
}

// pinnedClient speaks to the holder of one key and to nobody else, and through
// no proxy.
func pinnedClient(pin announce.Fingerprint) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSClientConfig:       announce.PinnedTLS(pin),
			TLSHandshakeTimeout:   5 * time.Second,
			ResponseHeaderTimeout: 90 * time.Second, // beyond the longest hold of a desk
			MaxIdleConnsPerHost:   8,
			IdleConnTimeout:       time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Enrol enrols this agent with the box at boxURL (http://host:3142, whose port
// also speaks TLS), whose key has the given fingerprint, and keeps what it got
// in the file statePath, readable by the owner alone. An earlier enrolment in
// that file under the same name with the same box is renewed. The error wraps
// announce.ErrWrongKey if the box has another key.
func Enrol(ctx context.Context, boxURL string, pin announce.Fingerprint, name, statePath string) (*Line, error) {
	return enrol(ctx, pinnedClient(pin), boxURL, pin, name, statePath)
}

func enrol(ctx context.Context, client *http.Client, boxURL string, pin announce.Fingerprint, name, statePath string) (*Line, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	desk, err := secureURL(boxURL)
	if err != nil {
		return nil, err
	}
	ask := enrolment{Name: name}
	if old, err := readEnrolment(statePath); err == nil && old.Pin == pin && old.Name == name {
		ask.Token = old.Secret.token()
	}
	var got enrolled
	if err := post(ctx, client, desk+"/agent/enrol", "", ask, &got); err != nil {
		return nil, fmt.Errorf("enrol with %s: %w", boxURL, err)
	}
	file := enrolmentFile{
		Version: 1, Box: "http" + strings.TrimPrefix(desk, "https"), Pin: pin, Public: got.Public, BoxName: got.Box,
		Name: name, Node: got.Node, Secret: got.Secret, Channel: got.Channel,
	}
	line, err := newLine(file, client)
	if err != nil {
		return nil, fmt.Errorf("enrol with %s: answer of the box: %w", boxURL, err)
	}
	text, err := json.MarshalIndent(file, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("encode the enrolment: %w", err)
	}
	if err := announce.WriteFile(statePath, append(text, '\n')); err != nil {
		return nil, fmt.Errorf("keep the enrolment: %w", err)
	}
	return line, nil
}

// OpenLine reads the enrolment kept at statePath. The error wraps
// fs.ErrNotExist if there was none.
func OpenLine(statePath string) (*Line, error) {
	f, err := readEnrolment(statePath)
	if err != nil {
		return nil, err
	}
	line, err := newLine(f, pinnedClient(f.Pin))
	if err != nil {
		return nil, fmt.Errorf("enrolment in %s: %w", statePath, err)
	}
	return line, nil
}

func readEnrolment(path string) (f enrolmentFile, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return f, fmt.Errorf("read the enrolment: %w", err)
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("read the enrolment in %s: %w", path, err)
	}
	return f, nil
}

// Box is the URL of the box, http://host:port.
func (l *Line) Box() string { return l.file.Box }

// BoxName is what the box calls itself.
func (l *Line) BoxName() string { return l.file.BoxName }

// Name is what this agent calls itself.
func (l *Line) Name() string { return l.file.Name }

// Node is this agent's NORM node id.
func (l *Line) Node() norm.NodeID { return l.file.Node }

// Fingerprint names the box's key.
func (l *Line) Fingerprint() announce.Fingerprint { return l.file.Pin }

// tuned gives the channel of notices and what is closed when it changes.
func (l *Line) tuned() (Channel, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.channel, l.changed
}

// tune takes the channel that came with an answer.
func (l *Line) tune(c Channel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.channel.equal(c) {
		l.channel = c
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// bearer is what shows the desk who asks.
func (l *Line) bearer() string {
	return fmt.Sprintf("Bearer %d.%s", l.file.Node, l.file.Secret.token())
}

// ask asks the desk about an object until it has decided.
func (l *Line) ask(ctx context.Context, w want) (answer, error) {
	for {
		var a answer
		if err := post(ctx, l.client, l.desk+"/agent/want", l.bearer(), w, &a); err != nil {
			return answer{}, fmt.Errorf("ask the box: %w", err)
		}
		if err := a.Channel.check(); err != nil {
			return answer{}, fmt.Errorf("answer of the box: %w", err)
		}
		l.tune(a.Channel)
		if a.State != verdictWait {
			return a, nil
		}
		select { // a desk that never holds its requests is not to be flooded
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return answer{}, fmt.Errorf("ask the box: %w", ctx.Err())
		}
	}
}

// report tells the desk about this agent's part in a session.
func (l *Line) report(ctx context.Context, r Report) error {
	var nothing struct{}
	if err := post(ctx, l.client, l.desk+"/agent/report", l.bearer(), r, &nothing); err != nil {
		return fmt.Errorf("report to the box: %w", err)
	}
	return nil
}

// address is the address of the box, as its name resolves.
func (l *Line) address(ctx context.Context) (netip.Addr, error) {
	u, err := url.Parse(l.desk)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("URL of the box: %w", err)
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		return a.Unmap(), nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("resolve the box: %w", err)
	}
	return addrs[0].Unmap(), nil
}

// errRefused says that the desk refused a request.
var errRefused = errors.New("the box refused")

// post sends one message and reads the answer.
func post(ctx context.Context, client *http.Client, url, bearer string, send, receive any) error {
	body, err := json.Marshal(send)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if bearer != "" {
		req.Header.Set("Authorization", bearer)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		return fmt.Errorf("%w: %s: %s", errRefused, resp.Status, strings.TrimSpace(string(text)))
	}
	text, err := readMessage(resp.Body, maxAnswer)
	if err != nil {
		return err
	}
	return decode(text, receive)
}

package multicast

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// The messages between agent and desk: JSON bodies of POST requests under
// /agent/, over TLS pinned to the box's key.

// Bounds of what either end reads, in bytes.
const (
	maxRequest = 64 << 10
	maxAnswer  = 16 << 20 // a layer of 350,000 blocks: objects of 350 GB
	maxHeader  = 32 << 10 // of the header fields passed along
)

// enrolment asks for a place on the box's roster.
type enrolment struct {
	Name string `json:"name"`
	// Token is what an agent that has enrolled before still has.
	Token string `json:"token,omitempty"`
}

// enrolled is the answer.
type enrolled struct {
	Node    norm.NodeID       `json:"node"`
	Secret  Secret            `json:"key"`
	Box     string            `json:"box"`
	Public  ed25519.PublicKey `json:"public_key"`
	Channel Channel           `json:"channel"`
}

// Channel is where and how a box posts its notices. Agents learn it over the
// pinned channel with every answer.
type Channel struct {
	// Epoch is that of the notices; see announce.Notice.
	Epoch uint64 `json:"epoch,string"`
	Mode  Mode   `json:"mode"`
	// Group is the address and port of the notices; the zero value says that the
	// box casts nothing.
	Group netip.AddrPort `json:"group,omitzero"`
	// Sources are the addresses that the box sends from, one for each interface.
	Sources []netip.Addr `json:"sources,omitempty"`
}

// check reports what keeps a channel from being joined.
func (c Channel) check() error {
	if !c.Group.IsValid() {
		return nil
	}
	if c.Mode != SSM && c.Mode != ASM {
		return fmt.Errorf("channel: mode %q", c.Mode)
	}
	if !c.Group.Addr().IsMulticast() || c.Group.Port() == 0 {
		return fmt.Errorf("channel: group %s is not multicast", c.Group)
	}
	if len(c.Sources) > 16 {
		return fmt.Errorf("channel: %d sources", len(c.Sources))
	}
	for _, a := range c.Sources {
		if !a.IsValid() || a.IsMulticast() || a.IsUnspecified() {
			return fmt.Errorf("channel: source %s is not unicast", a)
		}
	}
	return nil
}

// want asks how to come by an object: one of URL, Name and ID says which.
type want struct {
	URL    string      `json:"url,omitempty"`
	Header http.Header `json:"header,omitempty"`
	// Name is a name in the box's store, such as "btih:<infohash>/<path>".
	Name string `json:"name,omitempty"`
	// ID is the identity; the zero value is none.
	ID content.ID `json:"id,omitzero"`
}

// check reports what is wrong with the request itself.
func (w *want) check() error {
	named := 0
	for _, given := range []bool{w.URL != "", w.Name != "", !w.ID.IsZero()} {
		if given {
			named++
		}
	}
	if named != 1 {
		return fmt.Errorf("want: %d of url, name and id are given, expected one", named)
	}
	return nil
}

// verdict is how the desk answers a want.
type verdict string

const (
	// verdictCast: the object comes by multicast, now; the rest by HTTP.
	verdictCast verdict = "cast"
	// verdictHTTP: the object is here; fetch it from the box.
	verdictHTTP verdict = "http"
	// verdictBypass: ask the box's proxy as any client does.
	verdictBypass verdict = "bypass"
	// verdictWait: not decided yet; ask again.
	verdictWait verdict = "wait"
	// verdictGone stays within the desk: the object is not what it was.
	verdictGone verdict = "gone"
)

// answer is the desk's reply to a want. Head and object are given with cast
// and http only.
type answer struct {
	State   verdict     `json:"state"`
	Reason  string      `json:"reason,omitempty"`
	Channel Channel     `json:"channel"`
	Status  int         `json:"status,omitempty"`
	Header  http.Header `json:"header,omitempty"`
	ID      content.ID  `json:"id,omitzero"`
	// Layer are the hashes of the object's blocks, one after the other.
	Layer []byte `json:"layer,omitempty"`
}

// layer gives the proof of the object, checked against its identity.
func (a *answer) layer() (*content.Layer, error) {
	const size = len(content.Hash{})
	if a.ID.Size <= 0 || int64(len(a.Layer)) != content.Blocks(a.ID.Size)*int64(size) {
		return nil, fmt.Errorf("answer has %d bytes of hashes for an object of %d bytes", len(a.Layer), a.ID.Size)
	}
	l := &content.Layer{Size: a.ID.Size, Hashes: make([]content.Hash, len(a.Layer)/size)}
	for i := range l.Hashes {
		copy(l.Hashes[i][:], a.Layer[i*size:])
	}
	if err := l.Check(a.ID); err != nil {
		return nil, err
	}
	return l, nil
}

// flatten is the reverse of answer.layer.
func flatten(l *content.Layer) []byte {
	b := make([]byte, 0, len(l.Hashes)*len(content.Hash{}))
	for _, h := range l.Hashes {
		b = append(b, h[:]...)
	}
	return b
}

// readMessage reads a body of at most limit bytes.
func readMessage(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("message is longer than %d bytes", limit)
	}
	return body, nil
}

// decode reads one JSON value and nothing after it.
func decode(body []byte, v any) error {
	if len(body) == 0 {
		return errors.New("message is empty")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}

// equal reports whether both say the same.
func (c Channel) equal(other Channel) bool {
	return c.Epoch == other.Epoch && c.Mode == other.Mode && c.Group == other.Group && slices.Equal(c.Sources, other.Sources)
}

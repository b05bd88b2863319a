package multicast

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/multicast/announce"
)

// ErrBypass says that the box does not hand the object to agents: ask its proxy
// as any client does.
var ErrBypass = errors.New("object is not for agents")

// Enrol enrols this agent with the box at boxURL (http://host:3142, whose port
// also speaks TLS), whose key has the given fingerprint, and keeps what it got
// in the file statePath, readable by the owner alone. If the file holds an
// earlier enrolment under the same name with the same box, it is renewed. The
// error wraps announce.ErrWrongKey if the box has another key.
func Enrol(ctx context.Context, boxURL string, pin announce.Fingerprint, name, statePath string) (*Line, error) {
	return nil, errors.New("enrol")
}

// Line is an agent's channel to the desk of its box, pinned to the box's key.
// It is safe for concurrent use.
type Line struct{}

// OpenLine reads the enrolment kept at statePath. The error wraps
// fs.ErrNotExist if there was none.
func OpenLine(statePath string) (*Line, error) { return nil, errors.New("open") }

// Box is the URL of the box, http://host:port.
func (l *Line) Box() string { return "" }

// Name is what the box calls itself, Node this agent's NORM node id.
func (l *Line) Name() string { return "" }

// Member is an agent's way in to the objects of its box: it asks the desk and
// answers with an offer. It is safe for concurrent use.
type Member struct {
	line    *Line
	catcher *Catcher
	box     func(content.ID) content.Source
	log     *slog.Logger
}

// NewMember makes a Member. box gives the Source that fetches an object from
// the box over HTTP.
func NewMember(line *Line, catcher *Catcher, box func(content.ID) content.Source, log *slog.Logger) *Member {
	return &Member{line, catcher, box, log}
}

// Open asks the box how to come by what req asks for. It waits as long as the
// box wants it to wait for a cast. The error wraps ErrBypass if the request
// should go through the box's proxy.
func (m *Member) Open(ctx context.Context, req *http.Request) (*content.Offer, error) {
	return nil, ErrBypass
}

// OpenName is Open for a name in the box's store, such as
// "btih:<infohash>/<path>".
func (m *Member) OpenName(ctx context.Context, name string) (*content.Offer, error) {
	return nil, ErrBypass
}

// Resume gives the ways to go on with an object that was promised before.
func (m *Member) Resume(ctx context.Context, id content.ID) (*content.Offer, error) {
	return nil, ErrBypass
}

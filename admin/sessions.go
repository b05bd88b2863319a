package admin

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/alexedwards/scs/v2"
	"golang.org/x/time/rate"
)

// loggedIn is the key of the one thing that a session says.
const loggedIn = "admin"

// newSessions makes the sessions of logged-in browsers. They live in memory and
// end with the daemon. scs.New would start a goroutine that nobody waits for.
func newSessions(lifetime time.Duration) *scs.SessionManager {
	return &scs.SessionManager{
		Lifetime:         lifetime,
		Store:            &memory{sessions: map[string]session{}},
		Codec:            scs.GobCodec{},
		HashTokenInStore: true,
		ErrorFunc: func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "the session could not be kept", http.StatusInternalServerError)
		},
		Cookie: scs.SessionCookie{
			Name: "cistern_session", Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Persist: true,
		},
	}
}

// maxSessions bounds the sessions kept; one more ends the oldest.
const maxSessions = 64

// memory is a scs.Store of bounded size.
type memory struct {
	// mu guards what follows.
	mu       sync.Mutex
	sessions map[string]session
}

type session struct {
	data   []byte
	expiry time.Time
}

// Find gives a session that has not expired.
func (m *memory) Find(token string) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sessions[token]
	if !ok || !time.Now().Before(s.expiry) {
		return nil, false, nil
	}
	return s.data, true, nil
}

// Commit keeps a session, and makes room for it.
func (m *memory) Commit(token string, data []byte, expiry time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessions[token] = session{data, expiry}
	for len(m.sessions) > maxSessions {
		first := token
		for other, s := range m.sessions {
			if s.expiry.Before(m.sessions[first].expiry) {
				first = other
			}
		}
		delete(m.sessions, first)
	}
	return nil
}

// Delete ends a session.
func (m *memory) Delete(token string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, token)
	return nil
}

// Guesses of a password: each client may make a few at once and then one every
// guessEvery; all clients together have a limit as well.
const (
	guessBurst    = 5
	guessEvery    = 12 * time.Second
	allBurst      = 40
	allEvery      = 2 * time.Second
	maxThrottled  = 1024
	ipv6Household = 64 // bits of an IPv6 address that one household shares
)

// throttle slows guessing down.
type throttle struct {
	// mu guards what follows.
	mu   sync.Mutex
	all  *rate.Limiter
	each map[netip.Addr]*rate.Limiter
}

func newThrottle() *throttle {
	return &throttle{all: rate.NewLimiter(rate.Every(allEvery), allBurst), each: map[netip.Addr]*rate.Limiter{}}
}

// allow says whether a client may guess now, and else how long it has to wait.
func (t *throttle) allow(client netip.Addr, now time.Time) (wait time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	client = household(client)
	own := t.each[client]
	if own == nil {
		if len(t.each) >= maxThrottled {
			t.forgetIdle(now)
		}
		if len(t.each) >= maxThrottled {
			return guessEvery, false
		}
		own = rate.NewLimiter(rate.Every(guessEvery), guessBurst)
		t.each[client] = own
	}
	if own.TokensAt(now) < 1 {
		return guessEvery, false
	}
	if !t.all.AllowN(now, 1) {
		return allEvery, false
	}
	own.AllowN(now, 1)
	return 0, true
}

// forgive clears a client that guessed right.
func (t *throttle) forgive(client netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.each, household(client))
}

// forgetIdle drops clients that have all their guesses back; t.mu is held.
func (t *throttle) forgetIdle(now time.Time) {
	for client, own := range t.each {
		if own.TokensAt(now) >= guessBurst {
			delete(t.each, client)
		}
	}
}

// household is what counts as one client.
func household(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(ipv6Household); err == nil {
			return p.Addr()
		}
	}
	return a
}

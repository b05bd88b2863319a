package multicast

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cistern-edge/cistern/multicast/announce"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// Bounds of the roster.
const (
	maxAgents = 4096
	maxName   = 64 // bytes
)

// boxNode is the NORM node id of every box; agents have higher ones.
const boxNode norm.NodeID = 1

// Secret is the key that a box and one of its agents share. It authenticates
// the agent's requests and its NORM feedback. It does not print itself.
type Secret [32]byte

// String hides the secret from logs.
func (Secret) String() string { return "(secret)" }

// MarshalText gives the secret in hexadecimal, for the files that keep it.
func (s Secret) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads what MarshalText gives.
func (s *Secret) UnmarshalText(text []byte) error {
	if len(text) != 2*len(s) {
		return fmt.Errorf("agent key: %d characters, want %d", len(text), 2*len(s))
	}
	if _, err := hex.Decode(s[:], text); err != nil {
		return errors.New("agent key: not hexadecimal")
	}
	return nil
}

// derive gives a key for one purpose.
func (s Secret) derive(purpose string) []byte {
	mac := hmac.New(sha256.New, s[:])
	mac.Write([]byte(purpose))
	return mac.Sum(nil)
}

// token is what an agent shows with each request.
func (s Secret) token() string { return hex.EncodeToString(s.derive("cistern agent token")) }

// Agent is what a box knows of an agent that has enrolled.
type Agent struct {
	Node     norm.NodeID `json:"node"`
	Name     string      `json:"name"`
	Enrolled time.Time   `json:"enrolled"`
	Secret   Secret      `json:"key"`
	// Heard is when the agent last asked the desk for anything, and Address
	// where it did so from; both since the box's start.
	Heard   time.Time  `json:"-"`
	Address netip.Addr `json:"-"`
}

// Errors of enrolment.
var (
	// ErrNameTaken says that another agent has the name.
	ErrNameTaken = errors.New("the name is taken by another agent")
	// ErrRosterFull says that the box has all the agents that it can have.
	ErrRosterFull = errors.New("the box has no room for more agents")
	// ErrUnknownAgent says that no such agent has enrolled.
	ErrUnknownAgent = errors.New("no such agent")
)

// Roster is the list of agents that have enrolled with a box, kept in a file
// that only its owner can read. It is safe for concurrent use.
type Roster struct {
	path  string
	write func(path string, data []byte) error

	// saving guards the file, and is held by whoever changes what follows. It is
	// taken before mu.
	saving sync.Mutex

	// mu guards what follows; it is not held while the file is written, for
	// sessions that are on air look agents up.
	mu     sync.Mutex
	next   norm.NodeID
	agents map[norm.NodeID]Agent
}

// rosterFile is the file's form.
type rosterFile struct {
	Version int         `json:"version"`
	Next    norm.NodeID `json:"next"`
	Agents  []Agent     `json:"agents"`
}

// OpenRoster reads the roster kept at path. No file is an empty roster.
func OpenRoster(path string) (*Roster, error) {
	r := &Roster{path: path, write: announce.WriteFile, next: boxNode + 1, agents: map[norm.NodeID]Agent{}}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the agents: %w", err)
	}
	var file rosterFile
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("read the agents in %s: %w", path, err)
	}
	if file.Version != 1 {
		return nil, fmt.Errorf("read the agents in %s: version %d, want 1", path, file.Version)
	}
	r.next = max(r.next, file.Next)
	for _, a := range file.Agents {
		if !a.Node.Valid() || a.Node == boxNode {
			return nil, fmt.Errorf("read the agents in %s: node id %d", path, a.Node)
		}
		r.agents[a.Node] = a
		r.next = max(r.next, a.Node+1)
	}
	return r, nil
}

// save writes the file; r.saving is held.
func (r *Roster) save() error {
	r.mu.Lock()
	file := rosterFile{Version: 1, Next: r.next, Agents: r.sorted()}
	r.mu.Unlock()
	text, err := json.MarshalIndent(file, "", "\t")
	if err != nil {
		return fmt.Errorf("encode the agents: %w", err)
	}
	if err := r.write(r.path, append(text, '\n')); err != nil {
		return fmt.Errorf("keep the agents: %w", err)
	}
	return nil
}

// sorted lists the agents by node id; r.mu is held.
func (r *Roster) sorted() []Agent {
	list := make([]Agent, 0, len(r.agents))
	for _, a := range r.agents {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b Agent) int { return int(int64(a.Node) - int64(b.Node)) })
	return list
}

// Enrol adds an agent under a name of its choice. An agent that already has
// the name and proves it by its token gets what it had. The error wraps
// ErrNameTaken or ErrRosterFull, or says what is wrong with the name.
func (r *Roster) Enrol(name, token string) (Agent, error) {
	if err := checkName(name); err != nil {
		return Agent{}, err
	}
	r.saving.Lock()
	defer r.saving.Unlock()
	a, known, err := r.add(name, token)
	if err != nil {
		return Agent{}, fmt.Errorf("enrol %q: %w", name, err)
	}
	if known {
		return a, nil
	}
	if err := r.save(); err != nil {
		r.mu.Lock()
		delete(r.agents, a.Node)
		r.mu.Unlock()
		return Agent{}, err
	}
	return a, nil
}

// add finds or makes the agent of a name; r.saving is held.
func (r *Roster) add(name, token string) (a Agent, known bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.agents {
		if a.Name != name {
			continue
		}
		if subtle.ConstantTimeCompare([]byte(a.Secret.token()), []byte(token)) == 1 {
			return a, true, nil
		}
		return Agent{}, false, ErrNameTaken
	}
	if len(r.agents) >= maxAgents || !r.next.Valid() {
		return Agent{}, false, ErrRosterFull
	}
	a = Agent{Node: r.next, Name: name, Enrolled: time.Now().UTC().Truncate(time.Second)}
	if _, err := rand.Read(a.Secret[:]); err != nil {
		return Agent{}, false, err
	}
	r.agents[a.Node] = a
	r.next++
	return a, false, nil
}

// checkName reports what is wrong with an agent's name.
func checkName(name string) error {
	switch {
	case name == "" || len(name) > maxName:
		return fmt.Errorf("agent name of %d bytes, want 1 to %d", len(name), maxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }):
		return fmt.Errorf("agent name %q has characters that do not print", name)
	}
	return nil
}

// Revoke forgets an agent: its requests and its feedback count no more. Its
// node id is not given again.
func (r *Roster) Revoke(node norm.NodeID) error {
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	a, ok := r.agents[node]
	delete(r.agents, node)
	r.mu.Unlock()
	if !ok {
		return fmt.Errorf("revoke agent %d: %w", node, ErrUnknownAgent)
	}
	if err := r.save(); err != nil {
		r.mu.Lock()
		r.agents[node] = a
		r.mu.Unlock()
		return err
	}
	return nil
}

// Get gives what is known of an agent.
func (r *Roster) Get(node norm.NodeID) (Agent, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.agents[node]
	return a, ok
}

// hear notes that an agent has asked for something.
func (r *Roster) hear(node norm.NodeID, from netip.Addr, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, ok := r.agents[node]; ok {
		a.Heard, a.Address = now, from
		r.agents[node] = a
	}
}

// List gives all agents by node id.
func (r *Roster) List() []Agent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sorted()
}

// check finds the agent that node and token belong to.
func (r *Roster) check(node norm.NodeID, token string) (Agent, error) {
	a, ok := r.Get(node)
	if !ok || subtle.ConstantTimeCompare([]byte(a.Secret.token()), []byte(token)) != 1 {
		return Agent{}, ErrUnknownAgent
	}
	return a, nil
}

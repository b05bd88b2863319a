package multicast

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"errors"

	"github.com/cistern-edge/cistern/multicast/announce"
	"github.com/cistern-edge/cistern/multicast/norm"
)

// The field of authentication is as long as a signature in both directions; an
// agent's MAC fills the first half and zeros the rest.
const authSize = ed25519.SignatureSize

// What is signed or MACed is prefixed with its purpose, so that it is worth
// nothing anywhere else.
const (
	purposeSession  = "cistern norm"
	purposeFeedback = "cistern norm feedback"
)

var errBadAuth = errors.New("authentication failed")

// boxAuth is norm.Auth at the box: it signs what the box says and checks the
// MACs of its agents.
type boxAuth struct {
	key    *announce.Key
	roster *Roster
}

func (boxAuth) Overhead() int { return authSize }

func (a boxAuth) Seal(field, msg []byte) { copy(field, a.key.Sign(purposeSession, msg)) }

func (a boxAuth) Open(from norm.NodeID, field, msg []byte) error {
	agent, ok := a.roster.Get(from)
	if !ok || len(field) != authSize {
		return errBadAuth
	}
	var want [authSize]byte
	feedbackMAC(want[:], agent.Secret.derive(purposeFeedback), msg)
	if !hmac.Equal(field, want[:]) {
		return errBadAuth
	}
	return nil
}

// agentAuth is norm.Auth at an agent: it MACs what the agent says and checks
// the signature of its box.
type agentAuth struct {
	box ed25519.PublicKey
	mac []byte
}

func newAgentAuth(box ed25519.PublicKey, secret Secret) agentAuth {
	return agentAuth{box, secret.derive(purposeFeedback)}
}

func (agentAuth) Overhead() int { return authSize }

func (a agentAuth) Seal(field, msg []byte) { feedbackMAC(field, a.mac, msg) }

func (a agentAuth) Open(from norm.NodeID, field, msg []byte) error {
	if from != boxNode || !announce.Verify(a.box, purposeSession, msg, field) {
		return errBadAuth
	}
	return nil
}

// feedbackMAC writes HMAC-SHA-256 of msg into the first half of field.
func feedbackMAC(field, key, msg []byte) {
	mac := hmac.New(sha256.New, key)
	mac.Write(msg)
	mac.Sum(field[:0])
}

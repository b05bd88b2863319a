package proxy

import (
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/cistern-edge/cistern/cache"
	"github.com/cistern-edge/cistern/cache/content"
)

// Whoever asks for a digest of an object of up to quickDigest bytes has it with
// that answer, if it takes no longer than digestPatience.
const (
	quickDigest    = 16 << 20
	digestPatience = 250 * time.Millisecond
)

// addDigests adds Digest (RFC 3230) and Repr-Digest (RFC 9530) to an answer that
// brings an object or a part of it, where the SHA-256 of the whole is known and
// the client has not asked for others only. What the origin said stands.
func (s *Server) addDigests(h http.Header, r *http.Request, status int, info cache.Info) {
	if status != http.StatusOK && status != http.StatusPartialContent || !info.Complete || info.Size == 0 {
		return
	}
	old, asksOld := wantsDigest(r.Header)
	repr, asksRepr := wantsReprDigest(r.Header)
	old, repr = old && mayDigest(h), repr && h.Get("Repr-Digest") == ""
	if !old && !repr {
		return
	}
	sum, ok := s.digests.Whole(info.ID)
	switch {
	case !ok && !asksOld && !asksRepr:
		return
	case !ok && info.Size <= quickDigest:
		sums, err := s.sums(r.Context(), info, digestPatience)
		if err != nil {
			return // another time
		}
		sum = sums.Whole
	case !ok:
		s.digests.Ask(info.ID, info.Num)
		return
	}
	setDigests(h, sum, old, repr)
}

// mayDigest reports whether Digest can be added. Clients compare it with what
// they have made of an encoded body, which is not what it speaks of.
func mayDigest(h http.Header) bool { return h.Get("Digest") == "" && !encoded(h) }

func setDigests(h http.Header, sum content.Hash, old, repr bool) {
	text := base64.StdEncoding.EncodeToString(sum[:])
	if old {
		h.Set("Digest", "SHA-256="+text)
	}
	if repr {
		h.Set("Repr-Digest", "sha-256=:"+text+":")
	}
}

// wantsDigest reports whether a client takes SHA-256 in Digest, and whether it
// asks for it (RFC 3230 §4.3.1).
func wantsDigest(h http.Header) (takes, asks bool) {
	lines := h.Values("Want-Digest")
	for _, line := range lines {
		for member := range strings.SplitSeq(line, ",") {
			algorithm, params, _ := strings.Cut(member, ";")
			if strings.EqualFold(strings.TrimSpace(algorithm), "sha-256") && !zeroQuality(params) {
				return true, true
			}
		}
	}
	return len(lines) == 0, false
}

// wantsReprDigest reports whether a client takes SHA-256 in Repr-Digest, and
// whether it asks for it (RFC 9530 §4). What is no dictionary counts as absent.
func wantsReprDigest(h http.Header) (takes, asks bool) {
	lines := h.Values("Want-Repr-Digest")
	dict, err := httpsfv.UnmarshalDictionary(lines)
	if len(lines) == 0 || err != nil {
		return true, false
	}
	member, _ := dict.Get("sha-256")
	item, _ := member.(httpsfv.Item)
	weight, _ := item.Value.(int64)
	return weight > 0, weight > 0
}

// leafDigests adds the same to a prepared answer that brings a whole body, if
// that is one leaf: then its digest is the object's identity, and known.
func leafDigests(h http.Header, body []byte) {
	if len(body) > 0 && len(body) <= content.LeafSize {
		setDigests(h, content.LeafHash(body), mayDigest(h), h.Get("Repr-Digest") == "")
	}
}

package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"unicode/utf8"

	"github.com/cistern-edge/cistern/cache/content"
	"github.com/cistern-edge/cistern/cache/httpcache"
)

// stored is what the store keeps with a name.
type stored struct {
	httpcache.Response
	// Epoch is part of the names of all variants of a URL: once the URL has
	// lost its name, variants of an older epoch are never found again.
	Epoch int64 `json:",omitempty"`
	// Bytes are the fields with values that JSON cannot hold, since they are not
	// UTF-8 (obs-text, RFC 9110 §5.5).
	Bytes map[string][][]byte `json:",omitempty"`
}

// headOf makes the head of an answer to q as it is stored.
func (s *Server) headOf(q *query, status int, offer *content.Offer) *httpcache.Response {
	head := httpcache.NewResponse(q.req, status, offer.Header, offer.Requested, offer.Received)
	head.Surrogate = s.cfg.Surrogate && len(head.Header["Surrogate-Control"]) > 0
	return head
}

// encodeStored makes the store's meta of a head.
func encodeStored(head *httpcache.Response, epoch int64) ([]byte, error) {
	m := stored{Response: *head, Epoch: epoch}
	m.Header = http.Header{}
	for name, lines := range head.Header {
		if !slices.ContainsFunc(lines, func(line string) bool { return !utf8.ValidString(line) }) {
			m.Header[name] = lines
			continue
		}
		if m.Bytes == nil {
			m.Bytes = map[string][][]byte{}
		}
		for _, line := range lines {
			m.Bytes[name] = append(m.Bytes[name], []byte(line))
		}
	}
	meta, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode a head: %w", err)
	}
	return meta, nil
}

// decodeStored reads what encodeStored made.
func decodeStored(meta []byte) (head *httpcache.Response, epoch int64, ok bool) {
	var m stored
	if err := json.Unmarshal(meta, &m); err != nil || m.Status == 0 || m.Header == nil {
		return nil, 0, false
	}
	for name, lines := range m.Bytes {
		for _, line := range lines {
			m.Header[name] = append(m.Header[name], string(line))
		}
	}
	return &m.Response, m.Epoch, true
}

package actors

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"

	"github.com/cistern-edge/cistern/hwtest/lab"
)

// SecureName is the host that a SecureTracker must run on: the only one that its
// certificate is for.
const SecureName = "example.com"

// SecureTracker is a tracker (BEP 3, 23) behind TLS that names the same peers to
// everybody.
type SecureTracker struct {
	server *httptest.Server
}

// StartSecureTracker runs one on port 443 of a host and writes its certificate
// into a file.
func StartSecureTracker(host *lab.Host, certificate string, peers []netip.AddrPort) (*SecureTracker, error) {
	l, err := host.Listen("tcp", host.AddrPort(443))
	if err != nil {
		return nil, fmt.Errorf("start tracker: %w", err)
	}
	var compact []byte
	for _, p := range peers {
		compact = append(compact, compactPeer(p)...)
	}
	answer := bencode(nil, dict{"complete": int64(len(peers)), "interval": int64(120), "peers": compact})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(answer)
	}))
	_ = s.Listener.Close()
	s.Listener = l
	s.StartTLS()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(certificate, text, 0o644); err != nil {
		s.Close()
		return nil, fmt.Errorf("start tracker: %w", err)
	}
	return &SecureTracker{s}, nil
}

// Close ends it.
func (s *SecureTracker) Close() { s.server.Close() }

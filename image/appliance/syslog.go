package appliance

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"time"
)

// syslog sends every line of the log to a server until ctx is done (RFC 5424
// over UDP, RFC 5426). Lines that come faster than they go are dropped.
func (b *Box) syslog(ctx context.Context, server string) {
	if server == "" {
		return
	}
	if _, _, err := net.SplitHostPort(server); err != nil {
		server = net.JoinHostPort(server, "514")
	}
	lines := b.ring.Follow()
	var conn net.Conn
	for {
		select {
		case <-ctx.Done():
			return
		case chunk := <-lines:
			if conn == nil {
				var d net.Dialer
				var err error
				if conn, err = d.DialContext(ctx, "udp", server); err != nil {
					continue // without an address yet, or a name that nobody knows; saying so would be one more line
				}
				defer conn.Close()
			}
			for line := range bytes.Lines(chunk) {
				if line = bytes.TrimSpace(line); len(line) > 0 {
					_, _ = conn.Write(syslogLine(line, time.Now())) // who listens may be away
				}
			}
		}
	}
}

// syslogLine is one message: facility daemon, and the severity that the line
// says.
func syslogLine(line []byte, now time.Time) []byte {
	severity := 6
	for level, s := range map[string]int{"level=ERROR": 3, "level=WARN": 4, "level=DEBUG": 7} {
		if bytes.Contains(line, []byte(level)) {
			severity = s
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "-"
	}
	const longest = 2000 // RFC 5426 §3.2: what every server takes
	head := fmt.Appendf(nil, "<%d>1 %s %s cistern - - - ", 3<<3|severity, now.UTC().Format("2006-01-02T15:04:05.000Z"), host)
	return append(head, line[:min(len(line), longest)]...)
}

package steer

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"time"
)

// webHello is what the service asks the proxy: a request without Host, which a
// server has to refuse (RFC 9112 §3.2), before anybody counts or forwards it.
const webHello = "GET /well HTTP/1.1\r\n\r\n"

const (
	webEvery = time.Second
	// webTime is how long the proxy may take to answer. It is more than the sockets
	// have, because it has work to do.
	webTime = 4 * time.Second
)

// watchWeb looks after the proxy until ctx is done: while it does not answer,
// plain HTTP goes its own way.
func (s *Service) watchWeb(ctx context.Context, door net.Addr) {
	tick := time.NewTicker(webEvery)
	defer tick.Stop()
	for said := true; ; {
		err := askWeb(ctx, door.String(), webTime)
		if ctx.Err() != nil {
			return
		}
		if s.webWell.Store(err == nil); (err == nil) != said {
			if said = err == nil; said {
				s.log.Info("plain HTTP goes through the proxy again")
			} else {
				s.log.Warn("plain HTTP goes its own way: the proxy does not answer", "err", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// askWeb sends the proxy a request by the way that what was taken goes.
func askWeb(ctx context.Context, door string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", door)
	if err != nil {
		return fmt.Errorf("ask the proxy: %w", err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.Write([]byte(webHello)); err != nil {
		return fmt.Errorf("ask the proxy: %w", err)
	}
	line, err := bufio.NewReader(c).ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("ask the proxy: %w", err)
	}
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[9] == '5' {
		return fmt.Errorf("ask the proxy: it answered %q", line)
	}
	return nil
}

package steer

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"time"
)

// receive answers announces until the socket is closed. Those that are not
// answered go on as they were.
func (s *Service) receive(p *packets) error {
	buf := make([]byte, 2048)
	for {
		n, client, tracker, err := p.read(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if bytes.Equal(buf[:n], hello) && client.Addr().IsLoopback() {
			_, _ = p.WriteToUDPAddrPort(hello, client)
			continue
		}
		if tracker.IsValid() && !tracker.Addr().IsLoopback() {
			s.datagram(p.cfg, client, tracker, buf[:n])
		}
	}
}

func (s *Service) datagram(cfg Config, client, tracker netip.AddrPort, b []byte) {
	s.count.datagrams.Add(1)
	answer, ok := s.tracker.AnswerUDP(client, tracker, b)
	var err error
	if ok {
		s.count.answered.Add(1)
		err = send(tracker, client, answer, cfg.replyMark())
	} else {
		err = send(client, tracker, b, 0)
	}
	if err != nil {
		s.log.Debug("failed to send a datagram", "client", client.String(), "err", err)
	}
}

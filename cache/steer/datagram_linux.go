package steer

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// receive answers announces and lookups until the socket is closed. Those that are
// not answered go on as they were.
func (s *Service) receive(ctx context.Context, p *packets) error {
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
			s.datagram(ctx, p, client, tracker, buf[:n])
		}
	}
}

func (s *Service) datagram(ctx context.Context, p *packets, client, to netip.AddrPort, b []byte) {
	s.count.datagrams.Add(1)
	if bytes.HasPrefix(b, []byte(dhtQuery)) && s.lookUp(ctx, p, client, to, b) {
		return
	}
	answer, ok := s.tracker.AnswerUDP(client, to, b)
	var err error
	if ok {
		s.count.answered.Add(1)
		err = p.answer.send(to, client, answer)
	} else {
		err = p.on.send(client, to, b)
	}
	if err != nil {
		s.log.Debug("failed to send a datagram", "client", client.String(), "err", err)
	}
}

// nodeTime is how long a node of the DHT may take to answer.
const nodeTime = 5 * time.Second

// lookUp asks a node of the DHT in place of a client; false if it is the client's
// to ask. The box asks in its own name, so that the answer comes to it.
func (s *Service) lookUp(ctx context.Context, p *packets, client, node netip.AddrPort, query []byte) bool {
	rewrite, ok := s.dht.AnswerDHT(client, query)
	if !ok || s.cfg.inside(node.Addr()) {
		return false
	}
	select {
	case s.lookups <- struct{}{}:
	default:
		return false
	}
	query = bytes.Clone(query)
	s.count.lookups.Add(1)
	s.tasks.Go(func() {
		defer func() { <-s.lookups }()
		answer, err := askNode(ctx, node, query)
		if err == nil {
			err = p.answer.send(node, client, rewrite(answer))
		}
		if err != nil { // as if it had been lost
			s.log.Debug("failed to look up in the DHT", "client", client.String(), "err", err)
		}
	})
	return true
}

func askNode(ctx context.Context, node netip.AddrPort, query []byte) ([]byte, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", node.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.SetDeadline(time.Now().Add(nodeTime)); err != nil {
		return nil, err
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	answer := make([]byte, 2048)
	n, err := c.Read(answer)
	return answer[:n], err
}

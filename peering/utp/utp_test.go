package utp

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"sync/atomic"
	"testing"
)

func newSocket(t *testing.T) Socket {
	t.Helper()
	s, err := NewSocket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestBytesCrossBothWays(t *testing.T) {
	server, client := newSocket(t), newSocket(t)
	sent := make([]byte, 300_000)
	_, _ = rand.Read(sent)
	got := make(chan []byte, 1)
	go func() {
		conn, err := server.Accept()
		if err != nil {
			got <- nil
			return
		}
		defer conn.Close()
		buf := make([]byte, len(sent))
		_, _ = io.ReadFull(conn, buf)
		_, _ = conn.Write([]byte("thanks"))
		got <- buf
		_, _ = io.Copy(io.Discard, conn)
	}()
	conn, err := client.DialContext(context.Background(), "", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 6)
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "thanks" {
		t.Errorf("answer %q, %v", answer, err)
	}
	if !bytes.Equal(<-got, sent) {
		t.Error("bytes changed on the way")
	}
}

func TestFirewallDropsOnlyWhatOpensConnections(t *testing.T) {
	server := newSocket(t)
	var asked atomic.Int32
	server.SetFirewallCallback(func(net.Addr) bool { asked.Add(1); return true })
	foreign, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	syn := make([]byte, 20)
	syn[0] = synHeader
	for _, packet := range [][]byte{syn, []byte("d1:ad2:id20:a packet of the DHTe")} {
		if _, err := foreign.WriteTo(packet, server.Addr()); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 100)
	n, _, err := server.ReadFrom(buf)
	if err != nil || !bytes.HasPrefix(buf[:n], []byte("d1:a")) {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if asked.Load() != 1 {
		t.Errorf("firewall asked %d times, want once", asked.Load())
	}
}

func TestAddressThatCannotBeListenedOn(t *testing.T) {
	s, err := NewSocket("udp4", "nowhere:x")
	if err == nil || s != nil {
		t.Errorf("socket %v, error %v", s, err)
	}
}

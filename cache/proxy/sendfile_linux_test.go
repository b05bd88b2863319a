package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// tcpPair is two ends of a connection with little room in it.
func tcpPair(t *testing.T) (ours *conn, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	theirs, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	ours = &conn{TCPConn: c.(*net.TCPConn), turns: newPatience()}
	if err := errors.Join(ours.SetWriteBuffer(64<<10), theirs.(*net.TCPConn).SetReadBuffer(64<<10)); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

func fileOf(t *testing.T, data []byte) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestSendFile sends a part of a file to a client that is fast, then for longer
// than a moment silent, then fast again; alone and with no turn left.
func TestSendFile(t *testing.T) {
	data := make([]byte, 6<<20)
	for i := range data {
		data[i] = byte(i * 7 / 3)
	}
	for _, turns := range []int{1, 0} {
		ours, theirs := tcpPair(t)
		ours.turns = make(patience, turns)
		file := fileOf(t, data)
		if _, err := file.Seek(1000, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		want := data[1000 : len(data)-1000]
		got := make(chan []byte)
		go func() {
			first, _ := io.ReadAll(io.LimitReader(theirs, 1<<20)) // compared below
			time.Sleep(3 * moment)
			rest, _ := io.ReadAll(theirs)
			got <- append(first, rest...)
		}()
		n, err := ours.ReadFrom(io.LimitReader(file, int64(len(want))))
		ours.Close()
		if body := <-got; err != nil || n != int64(len(want)) || !bytes.Equal(body, want) {
			t.Errorf("with %d turns: %d bytes sent, %v; %d came, equal: %v", turns, n, err, len(body), bytes.Equal(body, want))
		}
	}
}

// TestSendFileEnds: a file that is shorter than was said, and a client that
// takes nothing.
func TestSendFileEnds(t *testing.T) {
	ours, theirs := tcpPair(t)
	if n, err := ours.ReadFrom(io.LimitReader(fileOf(t, make([]byte, 1000)), 2000)); n != 1000 || err != nil {
		t.Errorf("of a file that is too short %d bytes were sent, %v; want 1000", n, err)
	}
	if _, err := io.ReadFull(theirs, make([]byte, 1000)); err != nil {
		t.Error(err)
	}
	if err := ours.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := ours.ReadFrom(io.LimitReader(fileOf(t, make([]byte, 32<<20)), 32<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n >= 32<<20 {
		t.Errorf("a client that takes nothing got %d bytes, %v; want a deadline", n, err)
	}
}

package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// TestHostileOrigins: whatever an origin sends, a client gets all of a sound
// answer or an error, and nothing that is not whole is kept as if it were.
func TestHostileOrigins(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n"
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 8<<20))
	_ = z.Close()
	endless := func(w io.Writer) {
		_, _ = io.WriteString(w, ok)
		line := []byte("X-Filler: " + strings.Repeat("x", 1000) + "\r\n")
		for {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	}
	for name, row := range map[string]struct {
		answer string
		send   func(w io.Writer)
		want   string // "": an error
	}{
		"sound":                     {answer: ok + "Content-Length: 3\r\n\r\nabc", want: "abc"},
		"truncated":                 {answer: ok + "Content-Length: 10\r\n\r\nabc"},
		"truncated, of blocks":      {answer: ok + "Content-Length: 300000\r\n\r\n" + strings.Repeat("x", 200000)},
		"over-long":                 {answer: ok + "Content-Length: 3\r\n\r\nabcdef", want: "abc"},
		"two lengths":               {answer: ok + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"},
		"negative length":           {answer: ok + "Content-Length: -3\r\n\r\nabc"},
		"length of letters":         {answer: ok + "Content-Length: 3x\r\n\r\nabc"},
		"length and chunks":         {answer: ok + "Content-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", want: "abc"},
		"chunks, truncated":         {answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nabc"},
		"chunks without their end":  {answer: ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"},
		"chunk of no size":          {answer: ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"},
		"chunk of a huge size":      {answer: ok + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc\r\n0\r\n\r\n"},
		"a coding that nobody has":  {answer: ok + "Transfer-Encoding: secret\r\n\r\nabc"},
		"a part nobody asked for":   {answer: "HTTP/1.1 206 Partial\r\nContent-Range: bytes 5-7/9\r\nContent-Length: 30\r\n\r\nabc"},
		"gzip bomb":                 {answer: ok + "Content-Encoding: gzip\r\nContent-Length: " + strconv.Itoa(bomb.Len()) + "\r\n\r\n" + bomb.String(), want: bomb.String()},
		"never-ending head":         {send: endless},
		"a field without a name":    {answer: ok + ": x\r\nContent-Length: 3\r\n\r\nabc"},
		"nothing":                   {answer: ""},
		"not HTTP":                  {answer: "220 mail.example ESMTP\r\n"},
		"the head, and then no end": {answer: ok},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
							return
						}
						if row.send != nil {
							row.send(c)
						}
						_, _ = io.WriteString(c, row.answer)
					}()
				}
			}()
			b := simpleBox(t)
			for range 2 {
				r := b.do(http.MethodGet, "http://"+l.Addr().String()+"/x")
				sound := r.err == nil && r.StatusCode == http.StatusOK
				if sound != (row.want != "") || sound && string(r.body) != row.want {
					t.Errorf("%d, %d bytes, %v: %s", r.StatusCode, len(r.body), r.err, r.status())
				}
			}
			b.settle()
			for _, info := range b.store.List() {
				if info.Complete && row.want == "" {
					t.Errorf("kept: %+v", info)
				}
			}
		})
	}
}

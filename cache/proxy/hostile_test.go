package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/cistern-edge/cistern/cache/origin"
)

// TestHTTP2WhereTLSIs: a client that offers h2 gets it, and the desk's answers
// come whole, small ones and large ones.
func TestHTTP2WhereTLSIs(t *testing.T) {
	pair := httptest.NewUnstartedServer(nil)
	pair.EnableHTTP2 = true
	pair.StartTLS()
	defer pair.Close()
	body := testBody(3 << 20)
	b := newBox(t, t.TempDir(), loopback(t), func(c *Config) {
		c.TLS = &tls.Config{Certificates: pair.TLS.Certificates}
		c.Secure = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(body) })
	}, nil)
	for want, client := range map[int]*http.Client{
		2: pair.Client(),
		1: {Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pair.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, NextProtos: []string{"http/1.1"}}}},
	} {
		resp, err := client.Get("https://" + b.addr + "/agent/want")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		client.CloseIdleConnections()
		if err != nil || resp.ProtoMajor != want || string(got) != string(body) {
			t.Errorf("%s, want HTTP/%d: %d bytes, %v", resp.Proto, want, len(got), err)
		}
	}
}

// TestSmuggling sends bytes that two readers could take for different requests.
// In each {A} is an address at the origin; whatever the box makes of the bytes,
// /evil is never asked for, and the status is the one said.
func TestSmuggling(t *testing.T) {
	const evil = "GET {A}/evil HTTP/1.1\r\nHost: {H}\r\n\r\n"
	post := func(fields, body string) string {
		return "POST {A}/a HTTP/1.1\r\nHost: {H}\r\n" + fields + "Connection: close\r\n\r\n" + body
	}
	get := func(fields string) string {
		return "GET {A}/a HTTP/1.1\r\nHost: {H}\r\n" + fields + "Connection: close\r\n\r\n"
	}
	for _, c := range []struct{ name, text, want string }{
		{"both lengths: chunks count (RFC 9112 §6.3)", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+evil), "200"},
		{"both lengths, the other way round", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"+evil), "200"},
		{"two lengths that differ", post("Content-Length: 4\r\nContent-Length: 5\r\n", "abcde"+evil), "400"},
		{"two lengths in a list", post("Content-Length: 4, 5\r\n", "abcde"+evil), "400"},
		{"a length with a sign", post("Content-Length: +4\r\n", "abcd"+evil), "400"},
		{"a negative length", post("Content-Length: -1\r\n", evil), "400"},
		{"a length that is hexadecimal", post("Content-Length: 0x4\r\n", "abcd"+evil), "400"},
		{"a length with a space in it", post("Content-Length: 1 0\r\n", evil), "400"},
		{"a coding that is not chunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"+evil), "501"},
		{"a coding behind chunked", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"+evil), "501"},
		{"two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"+evil), "501"},
		{"a coding with a bare CR", post("Transfer-Encoding: \rchunked\r\n", "0\r\n\r\n"+evil), "400"},
		{"a coding with a vertical tab", post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"+evil), "400"},
		{"a space before the colon", post("Content-Length : 4\r\n", "abcd"+evil), "400"},
		{"a coding in a folded line", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), "200"},
		{"a folded first line", "GET {A}/a HTTP/1.1\r\n Host: {H}\r\nConnection: close\r\n\r\n", "400"},
		{"a bare CR in a value", get("X: a\rContent-Length: 50\r\n"), "400"},
		{"a NUL in a value", get("X: a\x00b\r\n"), "400"},
		{"a bare CR in the target", "GET {A}/a\rb HTTP/1.1\r\nHost: {H}\r\nConnection: close\r\n\r\n", "400"},
		{"a name that is none", get("X@Y: 1\r\n"), "400"},
		{"an empty name", get(": 1\r\n"), "400"},
		{"no Host", "GET {A}/a HTTP/1.1\r\nConnection: close\r\n\r\n", "400"},
		{"two Hosts", get("Host: evil\r\n"), "400"},
		{"a body of GET", get("Content-Length: 12\r\n") + "GET {A}/evil", "200"},
		{"a chunk that is longer than it says", post("Transfer-Encoding: chunked\r\n", "1\r\nabc\r\n0\r\n\r\n"+evil), "502"},
		{"a chunk length with a sign", post("Transfer-Encoding: chunked\r\n", "+1\r\na\r\n0\r\n\r\n"+evil), "502"},
		{"a chunk length without end", post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\na\r\n0\r\n\r\n"+evil), "502"},
		{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + evil, "405"},
		{"HTTP/0.9", "GET {A}/a\r\n\r\n", "400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					panic(http.ErrAbortHandler)
				}
				file([]byte("hello"), `"e"`, "max-age=60")(w, r)
			})
			b := simpleBox(t)
			text := strings.NewReplacer("{A}", s.URL, "{H}", strings.TrimPrefix(s.URL, "http://")).Replace(c.text)
			got := b.raw(text)
			if !strings.HasPrefix(got, "HTTP/1.1 "+c.want) && !strings.HasPrefix(got, "HTTP/1.0 "+c.want) {
				t.Errorf("%q, want %s", got, c.want)
			}
			if strings.Count(got, "HTTP/1.") != 1 {
				t.Errorf("more than one answer: %q", got)
			}
			for _, r := range s.requests() {
				if r.URL.Path == "/evil" {
					t.Error("/evil was asked for")
				}
			}
		})
	}
}

// TestOneClientCannotShapeTheOthersAnswer: an origin that puts what a field says
// into its answer, and does not say so by Vary.
func TestOneClientCannotShapeTheOthersAnswer(t *testing.T) {
	for _, field := range []string{
		"X-Forwarded-Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Forwarded-Port", "X-Forwarded-Server",
		"X-Forwarded-Prefix", "X-Forwarded-Path", "X-Forwarded", "Forwarded", "Forwarded-For", "X-Host", "X-Original-Host", "X-Original-URL",
		"X-Rewrite-URL", "X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override", "X-Real-IP", "True-Client-IP", "X-Client-IP",
		"X-Original-For", "X-Url-Scheme", "Front-End-Https", "X-ProxyUser-Ip", "Proxy",
	} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("X-Said", r.Header.Get(field))
				fmt.Fprint(w, "for ", r.Header.Get(field))
			})
			b := simpleBox(t)
			b.get(s.URL+"/a", field+": evil")
			b.settle()
			if r := b.get(s.URL + "/a"); strings.Contains(string(r.body)+r.Header.Get("X-Said"), "evil") {
				t.Errorf("the next client gets %q", r.body)
			}
		})
	}
	for name, fields := range map[string][]string{
		"a condition":       {`If-None-Match: "x"`},
		"a range":           {"Range: bytes=1-1"},
		"Expect":            {"Expect: 100-continue"},
		"Connection":        {"Connection: X-Kind", "X-Kind: evil"},
		"Authorization":     {"Authorization: evil"},
		"the request's no-": {"Cache-Control: no-store"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("ETag", `"e"`)
				fmt.Fprint(w, "for ", r.Header.Get("X-Kind"), r.Header.Get("Authorization"))
			})
			b := simpleBox(t)
			b.do("GET", s.URL+"/a", fields...)
			b.settle()
			if r := b.get(s.URL + "/a"); r.StatusCode != 200 || string(r.body) != "for " {
				t.Errorf("the next client gets %d %q", r.StatusCode, r.body)
			}
		})
	}
	t.Run("a body of GET", func(t *testing.T) {
		s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			said, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "for %s", said)
		})
		b := simpleBox(t)
		b.raw("GET " + s.URL + "/a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\nevil")
		b.settle()
		if r := b.get(s.URL + "/a"); string(r.body) != "for " {
			t.Errorf("the next client gets %q", r.body)
		}
	})
}

// TestPathsAreNotConfused: what the origin tells apart is never one answer, and
// the origin is asked for what the client wrote.
func TestPathsAreNotConfused(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, r.RequestURI)
	})
	b := simpleBox(t)
	paths := []string{
		"/a", "/a/", "//a", "/a/.", "/a/../b", "/a%2F..%2Fb", "/a/..%2fb", "/a;x", "/a%3Bx", "/a?x", "/a%3Fx", "/a%00", "/a%0d%0aX:%20y",
		"/A", "/a?", "/a?b&c", "/a?c&b", "/a%23b", "/%61", "/a.css", "/account/x.css", "/a%5C..%5Cb", "/a?x=/../b", "/a%252F",
	}
	for _, path := range paths {
		for round, via := range []string{s.URL + path, b.via(s, path)} {
			got := b.raw("GET " + via + " HTTP/1.1\r\nHost: " + b.addr + "\r\nConnection: close\r\n\r\n")
			head, body, _ := strings.Cut(got, "\r\n\r\n")
			if strings.HasPrefix(head, "HTTP/1.1 400") {
				continue // named as malformed
			}
			same := []string{path}
			switch path { // RFC 3986 §6.2.2: these are the same address
			case "/%61", "/a":
				same = []string{"/a", "/%61"}
			case "/a/.", "/a/":
				same = []string{"/a/", "/a/."}
			}
			if !slices.Contains(same, body) {
				t.Errorf("%s (%d) is answered with %q", path, round, got)
			}
		}
		b.settle()
	}
}

// TestNoWayInside: addresses that lead to the box, to its network or to nothing,
// in all their forms, by each way to name them.
func TestNoWayInside(t *testing.T) {
	s := newSite(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "secret") })
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	b := newBox(t, t.TempDir(), &origin.Dialer{}, nil, nil)
	for host, want := range map[string][]int{
		"127.0.0.1":                {403},
		"127.255.255.254":          {403},
		"localhost":                {403},
		"localhost.":               {403, 502},
		"LOCALHOST":                {403},
		"0.0.0.0":                  {403},
		"[::1]":                    {403},
		"[::]":                     {403},
		"[0:0:0:0:0:0:0:1]":        {403},
		"[::ffff:127.0.0.1]":       {403},
		"[::ffff:7f00:1]":          {403},
		"[0:0:0:0:0:ffff:7f00:1]":  {403},
		"[::127.0.0.1]":            {403},
		"[64:ff9b::127.0.0.1]":     {403},
		"[2002:7f00:1::]":          {403},
		"10.0.0.1":                 {403},
		"172.16.0.1":               {403},
		"192.168.0.1":              {403},
		"100.64.0.1":               {403},
		"169.254.169.254":          {403},
		"[fe80::1]":                {403},
		"[fd00:ec2::254]":          {403},
		"224.0.0.251":              {403},
		"255.255.255.255":          {403},
		"2130706433":               {400, 502, 504}, // such a name that nobody has
		"0x7f000001":               {400, 502, 504},
		"0x7f.0.0.1":               {400, 502, 504},
		"017700000001":             {400, 502, 504},
		"0177.0.0.1":               {400, 502, 504},
		"127.1":                    {400, 502, 504},
		"127.0.0.1%00.example.org": {400},
		"127.0.0.1%2f.example.org": {400},
		"①②⑦.⓪.⓪.①":                {400, 403, 502, 504},
	} {
		for _, way := range []string{
			"GET http://" + host + ":" + port + "/ HTTP/1.1\r\nHost: x\r\n",
			"POST http://" + host + ":" + port + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n",
			"GET /get/http/" + host + ":" + port + "/ HTTP/1.1\r\nHost: " + b.addr + "\r\n",
			"GET /get/http/" + strings.ReplaceAll(host, "%", "%25") + ":" + port + "/?meta4 HTTP/1.1\r\nHost: " + b.addr + "\r\n",
			"CONNECT " + host + ":443 HTTP/1.1\r\nHost: x\r\n",
		} {
			got := b.raw(way + "Connection: close\r\n\r\n")
			var status int
			if _, err := fmt.Sscanf(got, "HTTP/1.1 %d", &status); err != nil || !slices.Contains(want, status) && status != 400 {
				t.Errorf("%q: %q, want %v", way, got, want)
			}
			if strings.Contains(got, "secret") {
				t.Errorf("%q leads inside", way)
			}
		}
	}
	if n := len(s.requests()); n > 0 {
		t.Errorf("%d requests came through", n)
	}
}

// TestRedirectsLeadNowhere: a redirect inside is the client's to follow, and is
// refused then.
func TestRedirectsLeadNowhere(t *testing.T) {
	inside := newSite(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "secret") })
	outside := newSite(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inside.URL+"/", http.StatusFound) })
	only, err := origin.ParseDestination(strings.TrimPrefix(outside.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	b := newBox(t, t.TempDir(), &origin.Dialer{Allow: []origin.Destination{only}}, nil, nil)
	for _, at := range []string{outside.URL + "/", b.via(outside, "/")} {
		r := b.get(at)
		to := r.Header.Get("Location")
		if r.StatusCode != 302 || to == "" {
			t.Fatalf("%s: %d %q", at, r.StatusCode, to)
		}
		if strings.HasPrefix(to, "/") {
			to = b.at(to)
		}
		if r := b.get(to); r.StatusCode != 403 {
			t.Errorf("%s: %d %q", to, r.StatusCode, r.body)
		}
	}
	if n := len(inside.requests()); n > 0 {
		t.Errorf("%d requests came through", n)
	}
}

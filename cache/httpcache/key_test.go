package httpcache

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestKey(t *testing.T) {
	for in, want := range map[string]string{
		"http://a":                            "http://a/",
		"HTTP://A.Example:80/":                "http://a.example/",
		"https://a:443/x":                     "https://a/x",
		"http://a:443/":                       "http://a:443/",
		"http://a:/":                          "http://a/",
		"http://a:0080/":                      "http://a/",
		"http://a/x#frag":                     "http://a/x",
		"http://a/?":                          "http://a/?",
		"http://a?q=1":                        "http://a/?q=1",
		"http://a/?b=2&a=1":                   "http://a/?b=2&a=1",
		"http://a/%7euser/%41%2d":             "http://a/~user/A-",
		"http://a/%2f%3a?%2f":                 "http://a/%2F%3A?%2F",
		"http://a/b/../c/%2e%2e/d":            "http://a/b/../c/%2E%2E/d",
		"http://a//b/":                        "http://a//b/",
		"http://a/B":                          "http://a/B",
		"http://a/ü?ü":                        "http://a/%C3%BC?%C3%BC",
		"http://[2001:DB8:0::1]:80/":          "http://[2001:db8::1]/",
		"http://[::1]:8080/":                  "http://[::1]:8080/",
		"http://127.0.0.1:8080/a;b=c,d/e@f:g": "http://127.0.0.1:8080/a;b=c,d/e@f:g",
	} {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Key(u); err != nil || got != want {
			t.Errorf("RFC 3986 §6.2: %s: got %s, %v; want %s", in, got, err, want)
		}
	}
}

func TestKeyErrors(t *testing.T) {
	for _, c := range []struct {
		u         *url.URL
		part, why string
	}{
		{&url.URL{Host: "a"}, "scheme", `""`},
		{&url.URL{Scheme: "ftp", Host: "a"}, "scheme", "ftp"},
		{&url.URL{Scheme: "http"}, "host", "missing"},
		{&url.URL{Scheme: "http", Opaque: "a"}, "host", "missing"},
		{&url.URL{Scheme: "http", Host: ":80"}, "host", "missing"},
		{&url.URL{Scheme: "http", Host: "a b"}, "host", "' '"},
		{&url.URL{Scheme: "http", Host: "bücher.example"}, "host", "'ü'"},
		{&url.URL{Scheme: "http", Host: "a/b"}, "host", "'/'"},
		{&url.URL{Scheme: "http", Host: "a..b"}, "host", "a..b"},
		{&url.URL{Scheme: "http", Host: strings.Repeat("a", 256)}, "host", "aaa"},
		{&url.URL{Scheme: "http", Host: "[fe80::1%eth0]"}, "host", "IPv6"},
		{&url.URL{Scheme: "http", Host: "[1:2]"}, "host", "IPv6"},
		{&url.URL{Scheme: "http", Host: "a:0"}, "port", `"0"`},
		{&url.URL{Scheme: "http", Host: "a:65536"}, "port", "65536"},
		{&url.URL{Scheme: "http", Host: "a:x"}, "port", `"x"`},
		{&url.URL{Scheme: "http", Host: "a", User: url.User("me")}, "userinfo", "not accepted"},
		{&url.URL{Scheme: "http", Host: "a", RawQuery: "a b"}, "query", "0x20"},
		{&url.URL{Scheme: "http", Host: "a", RawQuery: "a\r\nb"}, "query", "0x0d"},
		{&url.URL{Scheme: "http", Host: "a", RawQuery: "%zz"}, "query", "%zz"},
		{&url.URL{Scheme: "http", Host: "a", Path: "/" + strings.Repeat("a", maxURL)}, "length", "at most 8192"},
	} {
		key, err := Key(c.u)
		var fault *KeyError
		if !errors.As(err, &fault) || fault.Part != c.part || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%+v: got %q, %v; want %s: %s", c.u, key, err, c.part, c.why)
		}
	}
}

func FuzzKey(f *testing.F) {
	for _, s := range []string{"http://a/", "HTTPS://[::1]:443/%7e?%2f#x", "http://a:80//../%2e", "http://u:p@h/", "http:opaque", "//h/p", "http://h?%%%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.Parse(s)
		if err != nil {
			return
		}
		key, err := Key(u)
		if err != nil {
			return
		}
		if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }) || len(key) > maxURL {
			t.Fatalf("key %q of %q", key, s)
		}
		again, err := url.Parse(key)
		if err != nil {
			t.Fatalf("key %q of %q: %v", key, s, err)
		}
		if twice, err := Key(again); err != nil || twice != key {
			t.Fatalf("key %q of %q became %q, %v", key, s, twice, err)
		}
	})
}

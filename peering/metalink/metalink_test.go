package metalink

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

const release = `<?xml version="1.0" encoding="UTF-8"?>
<metalink xmlns="urn:ietf:params:xml:ns:metalink"><generator>x</generator>
<file name="disk.img"><size>14471447</size><hash type="sha-256">00</hash>
<url location="de" priority="2">http://two.example/disk.img</url><url>http://last.example/disk.img</url>
<url priority="1"> https://one.example/disk.img </url><url>ftp://old.example/disk.img</url>
<metaurl mediatype="torrent" priority="1" name="dir/disk.img">http://t.example/disk.torrent</metaurl>
<metaurl mediatype="sig">http://t.example/disk.sig</metaurl></file>
<file name="docs/README"><url>http://two.example/README</url></file></metalink>`

// texts are Metalinks, and what is wrong with them.
var texts = []struct{ name, text, fault string }{
	{"release", release, ""},
	{"empty", "", "not a metalink"},
	{"version 3", `<metalink version="3.0" xmlns="http://www.metalinker.org/"><files/></metalink>`, "not a metalink"},
	{"page", "<html></html>", "not a metalink"},
	{"no file", `<metalink xmlns="urn:ietf:params:xml:ns:metalink"></metalink>`, "no file"},
	{"no name", `<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file/></metalink>`, "not the name"},
	{"traversal", `<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="../etc/passwd"/></metalink>`, "not the name"},
	{"absolute", `<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="/etc/passwd"/></metalink>`, "not the name"},
	{"negative", `<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="a"><size>-1</size></file></metalink>`, "negative"},
	{"cut", release[:400], "read file"},
	{"entity", `<!DOCTYPE m [<!ENTITY e SYSTEM "file:///etc/passwd">]><metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="&e;"/></metalink>`, "entity"},
	{"long", strings.Repeat(" ", MaxText) + release, "at most"},
}

func TestParse(t *testing.T) {
	for _, c := range texts {
		files, err := Parse([]byte(c.text))
		if (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %v, want %q", c.name, err, c.fault)
		}
		if c.fault == "" && fmt.Sprint(files) != "[{disk.img 14471447 [https://one.example/disk.img http://two.example/disk.img http://last.example/disk.img]"+
			" [{http://t.example/disk.torrent dir/disk.img}]} {docs/README -1 [http://two.example/README] []}]" {
			t.Errorf("%s: %v", c.name, files)
		}
	}
}

func TestParseIsBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString(`<metalink xmlns="` + namespace + `">`)
	for i := range MaxFiles + 5 {
		fmt.Fprintf(&text, `<file name="f%d">`, i)
		for j := range (MaxLinks + 5) * (1 - min(i, 1)) {
			fmt.Fprintf(&text, `<url>http://m%d.example/</url>`, j)
		}
		text.WriteString(`</file>`)
	}
	text.WriteString(`</metalink>`)
	files, err := Parse([]byte(text.String()))
	if err != nil || len(files) != MaxFiles || len(files[0].Mirrors) != MaxLinks {
		t.Errorf("%d files, %v", len(files), err)
	}
}

var fields = []struct{ field, want string }{
	{`<http://a.example/f>; rel=duplicate; pri=2, <http://b.example/f>;rel="duplicate";pri=1;geo=de`, "{[http://b.example/f http://a.example/f] [] []}"},
	{
		`<f.torrent>; rel=describedby; type="application/x-bittorrent"; name="d/f", <f.meta4>; rel="describedby other"; type=application/metalink4+xml`,
		"{[] [{http://o.example/d/f.torrent d/f}] [http://o.example/d/f.meta4]}",
	},
	{`<f.asc>; rel=describedby; type="application/pgp-signature", </style.css>; rel=stylesheet`, "{[] [] []}"},
	{`<http://a.example/a,b;c>; title="x, <y>; \" rel=z"; rel=duplicate`, "{[http://a.example/a,b;c] [] []}"},
	{`<http://a.example/f>; rel=duplicate; anchor="#x", <ftp://a.example/f>; rel=duplicate, <javascript:x>; rel=duplicate`, "{[] [] []}"},
	{`<unclosed`, "{[] [] []}"},
	{`<f>; rel="duplicate`, "{[http://o.example/d/f] [] []}"},
	{`<f>; rel="dupl\`, "{[] [] []}"},
	{`, ,<f>;;rel=duplicate;=;,`, "{[http://o.example/d/f] [] []}"},
}

func base() *url.URL { return &url.URL{Scheme: "http", Host: "o.example", Path: "/d/f"} }

func TestParseLinks(t *testing.T) {
	for _, c := range fields {
		if got := fmt.Sprint(ParseLinks(base(), http.Header{"Link": {c.field}})); got != c.want {
			t.Errorf("%s: %s, want %s", c.field, got, c.want)
		}
	}
	many := http.Header{"Link": {strings.Repeat("<x>; rel=duplicate,", MaxLinks), "<y>; rel=duplicate"}}
	if got := ParseLinks(base(), many); len(got.Mirrors) != MaxLinks || slices.Contains(got.Mirrors, "http://o.example/d/y") {
		t.Errorf("%d mirrors", len(got.Mirrors))
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range texts[:len(texts)-1] {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		files, err := Parse(text)
		if err == nil && !IsMetalink(text) || len(files) > MaxFiles {
			t.Fatalf("%d files of what is none", len(files))
		}
		for _, file := range files {
			if !isRelative(file.Name) || len(file.Mirrors) > MaxLinks || len(file.Torrents) > MaxLinks {
				t.Fatalf("%+v", file)
			}
			mustBeHTTP(t, file.Mirrors...)
		}
	})
}

func FuzzParseLinks(f *testing.F) {
	for _, c := range fields {
		f.Add(c.field)
	}
	f.Fuzz(func(t *testing.T, field string) {
		got := ParseLinks(base(), http.Header{"Link": {field}})
		if len(got.Mirrors)+len(got.Torrents)+len(got.Metalinks) > MaxLinks {
			t.Fatal("too many")
		}
		mustBeHTTP(t, append(got.Mirrors, got.Metalinks...)...)
		for _, torrent := range got.Torrents {
			mustBeHTTP(t, torrent.URL)
		}
	})
}

func mustBeHTTP(t *testing.T, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		if u, err := url.Parse(a); err != nil || u.Scheme != "http" && u.Scheme != "https" {
			t.Fatalf("address %q", a)
		}
	}
}

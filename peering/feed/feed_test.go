package feed

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

var texts = map[string]struct{ text, want string }{
	"rss": {
		`<?xml version="1.0" encoding="iso-8859-1"?><rss version="2.0"><channel><title>x</title>
<item><title>One</title><link>http://example.org/one.html</link><enclosure url="/one.torrent" length="5" type="application/x-bittorrent"/></item>
<item><title>Two</title><link>https://example.org/get?id=2</link><enclosure url="https://example.org/get?id=2" type="application/x-bittorrent"/></item>
<item><title>News only</title><link>http://example.org/news</link></item>
<item><title>Three</title><link>magnet:?xt=urn:btih:0123456789012345678901234567890123456789&amp;dn=three</link></item>
<item><title>Once more</title><link>http://example.org/one.torrent#again</link></item></channel></rss>`,
		"one.torrent http://example.org/one.torrent, Two https://example.org/get?id=2, three magnet:?xt=urn:btih:0123456789012345678901234567890123456789&dn=three",
	},
	"atom": {
		`<feed xmlns="http://www.w3.org/2005/Atom"><entry><title>One</title><link rel="alternate" href="http://example.org/a"/>
<link rel="enclosure" type="application/x-bittorrent" href="a.torrent"/></entry></feed>`,
		"a.torrent http://example.org/pub/a.torrent",
	},
	"page": {
		`<!DOCTYPE html><html><head><base href="/iso/"></head><body><p>text & more <br><a href=debian-13.iso.torrent>x</a>
<A class="x" HREF='../other.TORRENT?x=1'>y</a> <a href="javascript:alert(1).torrent">z</a> <a href="file:///etc/x.torrent">f</a> <a href="readme.html">r</a></body>`,
		"debian-13.iso.torrent http://example.org/iso/debian-13.iso.torrent, other.TORRENT http://example.org/other.TORRENT?x=1",
	},
}

func base() *url.URL { return &url.URL{Scheme: "http", Host: "example.org", Path: "/pub/list"} }

func TestLists(t *testing.T) {
	for name, c := range texts {
		items, err := Parse(base(), []byte(c.text))
		var got []string
		for _, i := range items {
			got = append(got, i.Name+" "+i.Link)
		}
		if strings.Join(got, ", ") != c.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}

func TestWhatIsNoListIsRefused(t *testing.T) {
	for _, text := range []string{"", "plain text", "<rss><channel><item></rss", strings.Repeat(" ", MaxText+1)} {
		if items, err := Parse(base(), []byte(text)); err == nil {
			t.Errorf("%.20q gave %v", text, items)
		}
	}
}

func TestManyItemsAreBounded(t *testing.T) {
	var page strings.Builder
	page.WriteString("<html>")
	for i := range 3 * MaxItems {
		page.WriteString(`<a href="` + strings.Repeat("x", i%50+1) + string(rune('a'+i%26)) + url.QueryEscape(strings.Repeat("y", i/50)) + `.torrent">`)
	}
	items, err := Parse(base(), []byte(page.String()))
	if err != nil || len(items) != MaxItems {
		t.Errorf("%d items, %v", len(items), err)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range texts {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		items, _ := Parse(base(), text)
		if len(items) > MaxItems {
			t.Fatalf("%d items", len(items))
		}
		for _, i := range items {
			u, err := url.Parse(i.Link)
			if err != nil || !slices.Contains([]string{"http", "https", "magnet"}, u.Scheme) {
				t.Fatalf("link %q", i.Link)
			}
		}
	})
}

// Package feed reads lists of torrents that others publish: RSS and Atom feeds,
// and pages with links to .torrent files.
//
// It is a pure function of the text. It refuses links that are neither http,
// https nor magnet, and reads no more than [MaxItems] of them. Start reading at
// [Parse].
package feed

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"strings"

	"golang.org/x/net/html"
)

const (
	// MaxText is the longest list taken, in bytes.
	MaxText = 4 << 20
	// MaxItems is how many items of a list are read.
	MaxItems = 1000
	maxLink  = 8 << 10
)

// Item is one torrent of a list.
type Item struct {
	// Name is what the link's file is called, or the title where there is none.
	Name string
	// Link is the address of a .torrent file, or a magnet link.
	Link string
}

// Parse reads a list that came from base, in its order, each link once.
func Parse(base *url.URL, text []byte) ([]Item, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("list has %d bytes, at most %d are taken", len(text), MaxText)
	}
	c := &collector{base: base, seen: map[string]bool{}}
	switch rootOf(text) {
	case "rss", "feed", "RDF":
		err := c.document(text)
		return c.items, err
	case "":
		return nil, errors.New("neither a feed nor a page")
	}
	err := c.page(text)
	return c.items, err
}

// rootOf is the first element of a document; "" if there is none.
func rootOf(text []byte) string {
	d := xml.NewDecoder(bytes.NewReader(text))
	d.Strict, d.CharsetReader = false, passThrough
	for {
		token, err := d.RawToken()
		if err != nil {
			if bytes.Contains(text, []byte("<")) {
				return "html" // of a kind that is no XML
			}
			return ""
		}
		if start, ok := token.(xml.StartElement); ok {
			return start.Name.Local
		}
	}
}

// passThrough takes every encoding for one that has ASCII in it.
func passThrough(_ string, in io.Reader) (io.Reader, error) { return in, nil }

// collector gathers the items of a list.
type collector struct {
	base  *url.URL
	seen  map[string]bool
	items []Item
}

// add takes a link if it is that of a torrent. sure says that the list itself
// calls it one.
func (c *collector) add(title, link string, sure bool) bool {
	link = strings.TrimSpace(link)
	if link == "" || len(link) > maxLink || len(c.items) >= MaxItems {
		return false
	}
	u, err := c.base.Parse(link)
	if err != nil {
		return false
	}
	name := strings.TrimSpace(title)
	switch u.Scheme {
	case "magnet":
		if dn := u.Query().Get("dn"); dn != "" {
			name = dn
		}
	case "http", "https":
		if u.Host == "" || !sure && !strings.HasSuffix(strings.ToLower(u.Path), ".torrent") {
			return false
		}
		if file := path.Base(u.Path); strings.HasSuffix(strings.ToLower(file), ".torrent") {
			name = file
		}
	default:
		return false
	}
	u.Fragment = ""
	if address := u.String(); !c.seen[address] {
		c.seen[address] = true
		c.items = append(c.items, Item{Name: name, Link: address})
	}
	return true
}

// document is a feed: RSS 0.9x, 1.0 and 2.0, and Atom (RFC 4287).
type document struct {
	Items   []entry `xml:"channel>item"`
	Loose   []entry `xml:"item"` // RSS 1.0
	Entries []entry `xml:"entry"`
}

type entry struct {
	Title      string `xml:"title"`
	Links      []link `xml:"link"`
	GUID       string `xml:"guid"`
	Enclosures []link `xml:"enclosure"`
}

// link is an address as an attribute or as text.
type link struct {
	Href string `xml:"href,attr"`
	URL  string `xml:"url,attr"`
	Type string `xml:"type,attr"`
	Text string `xml:",chardata"`
}

const torrentType = "application/x-bittorrent"

func (c *collector) document(text []byte) error {
	var doc document
	d := xml.NewDecoder(bytes.NewReader(text))
	d.Strict, d.CharsetReader = false, passThrough
	if err := d.Decode(&doc); err != nil {
		return fmt.Errorf("read feed: %w", err)
	}
	for _, list := range [][]entry{doc.Items, doc.Loose, doc.Entries} {
		for _, e := range list {
			c.entry(e)
		}
	}
	return nil
}

// entry takes the first link of an entry that is one of a torrent.
func (c *collector) entry(e entry) {
	for _, l := range append(e.Enclosures, e.Links...) {
		for _, address := range []string{l.URL, l.Href, l.Text} {
			if c.add(e.Title, address, l.Type == torrentType) {
				return
			}
		}
	}
	c.add(e.Title, e.GUID, false)
}

// page reads the links of a page.
func (c *collector) page(text []byte) error {
	z := html.NewTokenizer(bytes.NewReader(text))
	z.SetMaxBuf(1 << 20)
	for {
		switch z.Next() {
		case html.ErrorToken:
			if err := z.Err(); !errors.Is(err, io.EOF) {
				return fmt.Errorf("read page: %w", err)
			}
			return nil
		case html.StartTagToken, html.SelfClosingTagToken:
			name, more := z.TagName()
			tag := string(name)
			for more && (tag == "a" || tag == "base") {
				var key, value []byte
				key, value, more = z.TagAttr()
				if string(key) != "href" {
					continue
				}
				if tag == "a" {
					c.add("", string(value), false)
				} else if base, err := c.base.Parse(string(value)); err == nil {
					c.base = base
				}
			}
		}
	}
}

// Package metalink reads where else a file can be had: Metalink files (RFC 5854)
// and the Link fields of an answer (RFC 6249).
//
// It is a pure function of the text. It refuses addresses that are neither http
// nor https, and more of them than [MaxLinks]; of hashes it takes no notice,
// because what comes is proved against a torrent. Start reading at [Parse].
package metalink

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"slices"
	"strings"
)

const (
	// MaxText is the longest Metalink file taken, in bytes.
	MaxText = 4 << 20
	// MaxFiles is how many files of a Metalink are read.
	MaxFiles = 1000
	// MaxLinks is how many addresses of each kind a file or an answer gives.
	MaxLinks = 64
	maxLink  = 8 << 10

	namespace   = "urn:ietf:params:xml:ns:metalink"
	torrentType = "application/x-bittorrent"
	meta4Type   = "application/metalink4+xml"
)

// File is one file of a Metalink.
type File struct {
	// Name is relative and has no dots for elements (RFC 5854 §4.1.2.1).
	Name string
	// Size in bytes; -1 if it is not said.
	Size int64
	// Mirrors have the file, the best first.
	Mirrors []string
	// Torrents describe it, the best first.
	Torrents []Torrent
}

// Torrent is the address of a .torrent file, and what the file is called in it; ""
// if that is not said.
type Torrent struct{ URL, Name string }

// IsMetalink says whether a text begins like a Metalink file.
func IsMetalink(text []byte) bool {
	text = bytes.TrimLeft(text[:min(len(text), 64<<10)], " \t\r\n\xef\xbb\xbf")
	if !bytes.HasPrefix(text, []byte("<")) {
		return false
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	d.CharsetReader = passThrough
	for {
		token, err := d.Token()
		if err != nil {
			return false
		}
		if start, ok := token.(xml.StartElement); ok {
			return start.Name.Local == "metalink" && start.Name.Space == namespace
		}
	}
}

// passThrough takes every encoding for one that has ASCII in it.
func passThrough(_ string, in io.Reader) (io.Reader, error) { return in, nil }

// element is a file as it is written.
type element struct {
	Name string  `xml:"name,attr"`
	Size *int64  `xml:"size"`
	URLs []place `xml:"url"`
	Meta []place `xml:"metaurl"`
}

// place is where something is. Lower priorities are better; 0 is none.
type place struct {
	Priority int    `xml:"priority,attr"`
	Kind     string `xml:"mediatype,attr"`
	Name     string `xml:"name,attr"`
	URL      string `xml:",chardata"`
}

// Parse reads a Metalink file.
func Parse(text []byte) ([]File, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("metalink has %d bytes, at most %d are taken", len(text), MaxText)
	}
	if !IsMetalink(text) {
		return nil, errors.New("not a metalink of RFC 5854")
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	d.CharsetReader = passThrough
	var files []File
	for len(files) < MaxFiles {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read metalink: %w", err)
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "file" || start.Name.Space != namespace {
			continue
		}
		var e element
		if err := d.DecodeElement(&e, &start); err != nil {
			return nil, fmt.Errorf("read file of metalink: %w", err)
		}
		f, err := e.file()
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, errors.New("metalink has no file")
	}
	return files, nil
}

func (e element) file() (File, error) {
	if !isRelative(e.Name) {
		return File{}, fmt.Errorf("metalink: %q is not the name of a file", e.Name[:min(len(e.Name), 80)])
	}
	f := File{Name: e.Name, Size: -1}
	if e.Size != nil {
		if f.Size = *e.Size; f.Size < 0 {
			return File{}, fmt.Errorf("metalink: size %d is negative", f.Size)
		}
	}
	for _, p := range inOrder(e.URLs) {
		if len(f.Mirrors) < MaxLinks && !slices.Contains(f.Mirrors, p.URL) {
			f.Mirrors = append(f.Mirrors, p.URL)
		}
	}
	for _, p := range inOrder(e.Meta) {
		if t := (Torrent{p.URL, p.Name}); len(f.Torrents) < MaxLinks && (p.Kind == "torrent" || p.Kind == torrentType) {
			f.Torrents = append(f.Torrents, t)
		}
	}
	return f, nil
}

// inOrder gives the places that can be asked, the best first.
func inOrder(places []place) []place {
	var good []place
	for _, p := range places {
		if p.URL = strings.TrimSpace(p.URL); canAsk(p.URL) {
			good = append(good, p)
		}
	}
	rank := func(p place) int {
		if p.Priority < 1 {
			return math.MaxInt
		}
		return p.Priority
	}
	slices.SortStableFunc(good, func(a, b place) int {
		switch ra, rb := rank(a), rank(b); {
		case ra < rb:
			return -1
		case ra > rb:
			return 1
		}
		return 0
	})
	return good
}

func canAsk(address string) bool {
	u, err := url.Parse(address)
	return err == nil && len(address) <= maxLink && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// isRelative says whether a name stays below where it is put.
func isRelative(name string) bool {
	if name == "" || strings.ContainsAny(name, "\\\x00") {
		return false
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || element == "." || element == ".." {
			return false
		}
	}
	return true
}

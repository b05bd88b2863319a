package peering

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
)

// Bounds on what is read from others.
const (
	// MaxMetainfo is the largest .torrent file taken, in bytes.
	MaxMetainfo = 16 << 20
	// maxText is the longest magnet taken, in bytes.
	maxText  = 64 << 10
	maxHints = 64 // trackers, web seeds and peers of one torrent, each
)

// ErrSpec says that what should be added is neither a magnet, an infohash nor a
// valid .torrent file; the message says what was wrong.
var ErrSpec = errors.New("not a torrent")

// Limits bound what one torrent may ask for.
type Limits struct {
	Files int   // padding included
	Bytes int64 // padding included
}

// count refuses far too many files without taking the text apart. Each has a
// length, in each of the two versions, and perhaps padding.
func (l Limits) count(text []byte) error {
	if n := bytes.Count(text, []byte("6:length")); n/4 > l.Files {
		return fmt.Errorf("torrent has more than %d files (about %d)", l.Files, n)
	}
	return nil
}

// Spec is what is known of a torrent before it is joined. All of it has been
// checked.
type Spec struct {
	// V1 and V2 are the infohashes; at least one is not zero.
	V1 [20]byte
	V2 [32]byte
	// Name to show until the info is known.
	Name     string
	Trackers []string
	WebSeeds []string
	Peers    []netip.AddrPort
	// Info is the info dictionary, nil for a magnet; Layers are the piece layers
	// of BEP 52 by pieces root.
	Info   []byte
	Layers map[string]string

	layout  *layout // of Info
	mirrors []fileMirror
	limits  Limits // of a magnet's info; zero: those of all
}

// fileMirror is where a file of a torrent, by its index, can be had by HTTP.
type fileMirror struct {
	file int
	url  string
}

// Key is the name of the torrent here: the v1 infohash in hexadecimal if there
// is one, else the v2 infohash.
func (s *Spec) Key() string {
	if s.V1 != ([20]byte{}) {
		return hex.EncodeToString(s.V1[:])
	}
	return hex.EncodeToString(s.V2[:])
}

// keys lists every infohash that is known, Key first; the v2 one also as short
// as peers say it.
func (s *Spec) keys() []string {
	keys := []string{s.Key()}
	if s.V2 == ([32]byte{}) {
		return keys
	}
	if v2 := hex.EncodeToString(s.V2[:]); v2 != keys[0] {
		keys = append(keys, v2)
	}
	return append(keys, hex.EncodeToString(s.V2[:20]))
}

// ParseSpec reads a magnet URI (BEP 9), an infohash (40 or 64 hexadecimal
// digits, or 32 of base32) or the bytes of a .torrent file (BEP 3, BEP 52). The
// error wraps ErrSpec and names what was wrong.
func ParseSpec(input []byte, limits Limits) (*Spec, error) {
	spec, err := parseSpec(input, limits)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	return spec, nil
}

func parseSpec(input []byte, limits Limits) (*Spec, error) {
	if len(input) > 0 && input[0] == 'd' && bytes.ContainsRune(input[:min(len(input), 80)], ':') {
		return parseMetainfo(input, limits) // an infohash can begin with d too
	}
	if len(input) > maxText {
		return nil, fmt.Errorf("%d bytes are neither a .torrent file, which begins with 'd', nor a magnet, which has at most %d", len(input), maxText)
	}
	text := strings.TrimSpace(string(input))
	switch {
	case text == "":
		return nil, errors.New("nothing was given")
	case len(text) >= 7 && strings.EqualFold(text[:7], "magnet:"):
		return parseMagnet(text)
	}
	s := &Spec{}
	if err := s.setInfohash(text); err != nil {
		return nil, fmt.Errorf("%q is neither a magnet nor an infohash nor a .torrent file: %w", clip(text), err)
	}
	return s, nil
}

// setInfohash reads an infohash of either version.
func (s *Spec) setInfohash(text string) error {
	switch len(text) {
	case 40:
		if _, err := hex.Decode(s.V1[:], []byte(text)); err != nil {
			return fmt.Errorf("v1 infohash %q: %w", text, err)
		}
	case 32:
		raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(text))
		if err != nil {
			return fmt.Errorf("v1 infohash %q in base32: %w", text, err)
		}
		copy(s.V1[:], raw)
	case 64:
		if _, err := hex.Decode(s.V2[:], []byte(text)); err != nil {
			return fmt.Errorf("v2 infohash %q: %w", text, err)
		}
	default:
		return fmt.Errorf("an infohash has 40 or 64 hexadecimal digits or 32 of base32, not %d characters", len(text))
	}
	if s.V1 == ([20]byte{}) && s.V2 == ([32]byte{}) {
		return errors.New("the infohash is all zeros")
	}
	return nil
}

// parseMagnet reads a magnet URI (BEP 9; its v2 topics BEP 52).
func parseMagnet(text string) (*Spec, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("magnet %q is not a URI", clip(text))
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("magnet %q: %w", clip(text), err)
	}
	s := &Spec{Name: cleanName(query.Get("dn"))}
	for _, xt := range query["xt"] {
		if err := s.addTopic(xt); err != nil {
			return nil, fmt.Errorf("magnet: %w", err)
		}
	}
	if s.V1 == ([20]byte{}) && s.V2 == ([32]byte{}) {
		return nil, fmt.Errorf("magnet %q has neither xt=urn:btih: nor xt=urn:btmh: for a topic", clip(text))
	}
	s.Trackers, s.WebSeeds = usableTrackers(query["tr"]), usableWebSeeds(query["ws"])
	for _, peer := range query["x.pe"] {
		if ap, err := netip.ParseAddrPort(peer); err == nil && ap.Port() != 0 && len(s.Peers) < maxHints {
			s.Peers = append(s.Peers, ap)
		}
	}
	return s, nil
}

// addTopic reads one exact topic; topics of other networks are passed over.
func (s *Spec) addTopic(xt string) error {
	if v1, ok := strings.CutPrefix(xt, "urn:btih:"); ok {
		if s.V1 != ([20]byte{}) {
			return errors.New("has two v1 infohashes")
		}
		if len(v1) == 64 {
			return fmt.Errorf("v1 infohash %q has 64 digits; a v2 infohash goes as xt=urn:btmh:1220… instead", v1)
		}
		return s.setInfohash(v1)
	}
	if multihash, ok := strings.CutPrefix(xt, "urn:btmh:"); ok {
		if s.V2 != ([32]byte{}) {
			return errors.New("has two v2 infohashes")
		}
		digest, ok := strings.CutPrefix(multihash, "1220") // SHA-256, 32 bytes
		if !ok || len(digest) != 64 {
			return fmt.Errorf("v2 infohash %q is not 1220 and 64 hexadecimal digits", clip(multihash))
		}
		return s.setInfohash(digest)
	}
	return nil
}

// metainfoFile is a .torrent file as far as it matters here.
type metainfoFile struct {
	Info         bencode.Bytes     `bencode:"info"`
	Announce     string            `bencode:"announce,ignore_unmarshal_type_error"`
	AnnounceList [][]string        `bencode:"announce-list,ignore_unmarshal_type_error"`
	URLList      metainfo.UrlList  `bencode:"url-list,ignore_unmarshal_type_error"`
	Layers       map[string]string `bencode:"piece layers"`
}

func parseMetainfo(input []byte, limits Limits) (*Spec, error) {
	if len(input) > MaxMetainfo {
		return nil, fmt.Errorf(".torrent file has %d bytes, at most %d are taken", len(input), MaxMetainfo)
	}
	var file metainfoFile
	err := limits.count(input)
	if err == nil {
		err = decode(input, &file)
	}
	if err != nil {
		return nil, fmt.Errorf(".torrent file: %w", err)
	}
	if len(file.Info) == 0 {
		return nil, errors.New(".torrent file has no info dictionary")
	}
	s := &Spec{Info: file.Info, Layers: file.Layers}
	if err := s.setInfo(limits); err != nil {
		return nil, fmt.Errorf(".torrent file: %w", err)
	}
	if err := s.layout.checkLayers(s.Layers); err != nil {
		return nil, fmt.Errorf(".torrent file: %w", err)
	}
	trackers := []string{file.Announce}
	for _, tier := range file.AnnounceList {
		trackers = append(trackers, tier...)
	}
	s.Trackers, s.WebSeeds = usableTrackers(trackers), usableWebSeeds(file.URLList)
	return s, nil
}

// setInfo lays out s.Info and takes the infohashes from it.
func (s *Spec) setInfo(limits Limits) error {
	if err := limits.count(s.Info); err != nil {
		return err
	}
	var info metainfo.Info
	if err := decode(s.Info, &info); err != nil {
		return fmt.Errorf("info: %w", err)
	}
	l, err := newLayout(&info, limits)
	if err != nil {
		return err
	}
	s.layout, s.Name = l, l.name
	if info.HasV1() {
		s.V1 = sha1.Sum(s.Info)
	}
	if info.HasV2() {
		s.V2 = sha256.Sum256(s.Info)
	}
	return nil
}

// decode reads bencode and nothing after it. The library panics on some faults
// of its input that it meets in a type's own decoder.
func decode(input []byte, into any) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("bad bencode: %v", fault)
		}
	}()
	if err := bencode.Unmarshal(input, into); err != nil {
		return fmt.Errorf("bad bencode: %s", clip(err.Error()))
	}
	return nil
}

// usableTrackers keeps the trackers that can be asked, each once.
func usableTrackers(urls []string) []string { return usable(urls, "http", "https", "udp") }

// usableWebSeeds keeps the web seeds of BEP 19, each once and with a path.
func usableWebSeeds(urls []string) []string {
	good := usable(urls, "http", "https")
	for i, text := range good {
		if u, err := url.Parse(text); err == nil && u.Path == "" {
			u.Path = "/"
			good[i] = u.String()
		}
	}
	return good
}

func usable(urls []string, schemes ...string) []string {
	var good []string
	seen := map[string]bool{}
	for _, u := range urls {
		if len(good) < maxHints && !seen[u] && checkURL(u, schemes...) == nil {
			seen[u] = true
			good = append(good, u)
		}
	}
	return good
}

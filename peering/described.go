package peering

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/cistern-edge/cistern/peering/metalink"
)

// This file finds a torrent, and the mirrors of its files, by what servers and
// metalinks say of a file.

// maxTorrentsAsked is how many of the .torrent files that a description names are
// asked for before it is given up.
const maxTorrentsAsked = 4

// specOf reads what is to be added.
func (s *Swarm) specOf(ctx context.Context, input []byte, limits Limits) (*Spec, error) {
	switch {
	case isURL(input):
		return s.specAt(ctx, strings.TrimSpace(string(input)), limits)
	case metalink.IsMetalink(input):
		return s.specByMetalink(ctx, input, limits)
	}
	return ParseSpec(input, limits)
}

func isURL(input []byte) bool {
	begin := strings.ToLower(string(bytes.TrimSpace(input[:min(len(input), 64)])))
	return strings.HasPrefix(begin, "http://") || strings.HasPrefix(begin, "https://")
}

// specAt reads what an address leads to: a .torrent file, a metalink, or a file
// of which its server says where those are (RFC 6249).
func (s *Swarm) specAt(ctx context.Context, address string, limits Limits) (*Spec, error) {
	ctx, cancel := context.WithTimeout(ctx, downloadTime)
	defer cancel()
	resp, err := s.ask(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("fetch .torrent file: %w", err)
	}
	defer resp.Body.Close()
	body := bufio.NewReader(resp.Body)
	begin, err := body.Peek(1)
	if err == nil && (begin[0] == 'd' || begin[0] == '<' || begin[0] == 0xef) {
		text, err := readBounded(body, MaxMetainfo)
		switch {
		case err != nil && begin[0] == 'd':
			return nil, fmt.Errorf("fetch .torrent file: %q: %w", clip(address), err)
		case err != nil:
		case begin[0] == 'd':
			return ParseSpec(text, limits)
		case metalink.IsMetalink(text):
			return s.specByMetalink(ctx, text, limits)
		}
	}
	links := linksOf(resp)
	for _, m := range links.Metalinks {
		if text, _, err := s.get(ctx, m, metalink.MaxText); err == nil {
			return s.specByMetalink(ctx, text, limits)
		}
	}
	if len(links.Torrents) == 0 {
		return nil, fmt.Errorf("%w: what %q gave is neither a .torrent file nor a metalink, and names none", ErrSpec, clip(address))
	}
	return s.specBy(ctx, []metalink.File{{
		Name: path.Base(resp.Request.URL.Path), Size: resp.ContentLength,
		Mirrors: append([]string{address}, links.Mirrors...), Torrents: links.Torrents,
	}}, limits)
}

// linksOf are the Link fields of an answer and of the redirects that led to it:
// servers that know mirrors send clients there.
func linksOf(resp *http.Response) (all metalink.Links) {
	for ; resp != nil; resp = resp.Request.Response {
		l := metalink.ParseLinks(resp.Request.URL, resp.Header)
		all.Mirrors = append(all.Mirrors, l.Mirrors...)
		all.Torrents = append(all.Torrents, l.Torrents...)
		all.Metalinks = append(all.Metalinks, l.Metalinks...)
	}
	return all
}

func (s *Swarm) specByMetalink(ctx context.Context, text []byte, limits Limits) (*Spec, error) {
	files, err := metalink.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	return s.specBy(ctx, files, limits)
}

// specBy gets the torrent that files are of, and gives it their mirrors.
func (s *Swarm) specBy(ctx context.Context, files []metalink.File, limits Limits) (*Spec, error) {
	var asked []string
	var failed []error
	for _, f := range files {
		for _, t := range f.Torrents {
			if slices.Contains(asked, t.URL) || len(asked) == maxTorrentsAsked {
				continue
			}
			asked = append(asked, t.URL)
			text, err := s.download(ctx, t.URL)
			var spec *Spec
			if err == nil {
				spec, err = ParseSpec(text, limits)
			}
			if err != nil {
				failed = append(failed, err)
				continue
			}
			spec.know(files, t.URL)
			return spec, nil
		}
	}
	if len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	for _, sh := range s.list() { // of what is here anyway?
		if l := sh.specNow().layout; l != nil {
			spec := *sh.specNow()
			spec.mirrors = nil
			if spec.know(files, ""); len(spec.mirrors) > 0 {
				return &spec, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: the metalink names no torrent, and none here has its files", ErrSpec)
}

// know takes in the mirrors of files of which from, a .torrent file, is the
// torrent. Those of the only file of a torrent are web seeds.
func (s *Spec) know(files []metalink.File, from string) {
	for _, f := range files {
		name := f.Name
		if i := slices.IndexFunc(f.Torrents, func(t metalink.Torrent) bool { return t.URL == from }); i >= 0 && f.Torrents[i].Name != "" {
			name = f.Torrents[i].Name
		} else if i < 0 && len(f.Torrents) > 0 {
			continue
		}
		i, ok := s.layout.find(name, f.Size, from != "" && len(files) == 1)
		if !ok {
			continue
		}
		for _, address := range f.Mirrors {
			s.mirrors = append(s.mirrors, fileMirror{i, address})
			if !s.layout.dir && !strings.HasSuffix(address, "/") {
				s.WebSeeds = usableWebSeeds(append(s.WebSeeds, address))
			}
		}
	}
}

// find gives the file of a torrent that a name and a size are of; a negative size
// is not known. If the file is said to be the torrent's, its only file has any
// name.
func (l *layout) find(name string, size int64, said bool) (index int, ok bool) {
	found := -1
	for i, f := range l.files {
		switch {
		case f.pad || size >= 0 && f.size != size || size < 0 && !said:
		case f.path == name || l.dir && l.name+"/"+f.path == name:
			return i, true
		case said && !l.dir:
			found = i
		}
	}
	return found, found >= 0
}

// download fetches a .torrent file.
func (s *Swarm) download(ctx context.Context, address string) ([]byte, error) {
	text, _, err := s.get(ctx, address, MaxMetainfo)
	if err != nil {
		return nil, fmt.Errorf("fetch .torrent file: %w", err)
	}
	if len(text) == 0 || text[0] != 'd' {
		return nil, fmt.Errorf("%w: what %q gave is not a .torrent file", ErrSpec, clip(address))
	}
	return text, nil
}

// get fetches a text of at most most bytes by the one way out, and says where it
// came from after redirects.
func (s *Swarm) get(ctx context.Context, address string, most int64) ([]byte, *url.URL, error) {
	ctx, cancel := context.WithTimeout(ctx, downloadTime)
	defer cancel()
	resp, err := s.ask(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	text, err := readBounded(resp.Body, most)
	if err != nil {
		return nil, nil, fmt.Errorf("%q: %w", clip(address), err)
	}
	return text, baseOf(resp.Request.URL), nil
}

// ask sends a GET and wants a 200.
func (s *Swarm) ask(ctx context.Context, address string) (*http.Response, error) {
	if err := checkURL(address, "http", "https"); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%q: the server answered %s", clip(address), clip(resp.Status))
	}
	return resp, nil
}

// readBounded reads all of a text, if that is at most most bytes.
func readBounded(from io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(from, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("it has more than %d bytes", most)
	}
	return text, err
}

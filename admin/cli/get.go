package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/admin/client"
	"github.com/cistern-edge/cistern/cache/content"
)

type getCmd struct {
	What   string `arg:"" help:"Object (number, identity, title) or URL."`
	Output string `help:"File to write; - is standard output. Default: the object's own name, here." short:"o" placeholder:"FILE"`
	Force  bool   `help:"Overwrite the file if it is there." short:"f"`
}

// got is what came of a download, as --json prints it.
type got struct {
	File   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	ID     string `json:"id,omitempty"`
	Proved bool   `json:"proved"`
}

func (c *getCmd) Run(s *session) error {
	from, id, name, err := c.locate(s)
	if err != nil {
		return err
	}
	file := c.Output
	if file == "" {
		file = safeName(name)
	}
	if file != "-" && !c.Force {
		if _, err := os.Lstat(file); err == nil {
			return fmt.Errorf("get %s: %s is there already; --force overwrites it, -o names another", c.What, file)
		}
	}
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, from, nil)
	if err != nil {
		return fmt.Errorf("get %s: %w", c.What, err)
	}
	transport := &http.Transport{Proxy: nil, ResponseHeaderTimeout: time.Minute, DisableCompression: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("get %s from the box's proxy: %w", c.What, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 300))
		if err != nil {
			text = nil
		}
		return fmt.Errorf("get %s: the box answered %s: %s", c.What, resp.Status, plain(strings.TrimSpace(string(text))))
	}
	result, err := c.save(s, resp, file, id)
	if err != nil {
		return fmt.Errorf("get %s: %w", c.What, err)
	}
	switch {
	case s.json && file != "-":
		return s.printJSON(result)
	case file != "-" && result.Proved:
		s.say("%s: %s, proved to be %s", file, size(result.Bytes), id)
	case file != "-":
		s.say("%s: %s", file, size(result.Bytes))
	}
	return nil
}

// locate finds where the box serves what was asked for, the identity that the
// bytes must have (zero if none is known) and what the file is called.
func (c *getCmd) locate(s *session) (from string, id content.ID, name string, err error) {
	status, err := s.box.Status(s.ctx)
	if err != nil {
		return "", id, "", err
	}
	proxy := "http://" + status.Proxy
	if u, err := url.Parse(c.What); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		return proxy + explicit(u), id, path.Base(u.Path), nil
	}
	o, err := s.box.Object(s.ctx, c.What)
	if err != nil {
		return "", id, "", err
	}
	if o.ID != "" && o.State == client.Complete {
		if id, err = content.ParseID(o.ID); err != nil {
			return "", id, "", fmt.Errorf("get %s: %w", c.What, err)
		}
	}
	name = path.Base(o.Title)
	if o.Public && !id.IsZero() {
		return proxy + "/o/" + id.String(), id, name, nil
	}
	for _, called := range o.Names {
		if rest, ok := strings.CutPrefix(called, "btih:"); ok {
			return proxy + (&url.URL{Path: "/o/btih:" + rest}).EscapedPath(), id, name, nil
		}
		if u, err := url.Parse(called); err == nil && u.Host != "" {
			return proxy + explicit(u), id, path.Base(u.Path), nil
		}
	}
	return "", id, "", fmt.Errorf("get %s: object %d has no name by which the box serves it", c.What, o.Num)
}

// explicit is the path under which the proxy serves a URL.
func explicit(u *url.URL) string {
	p := "/get/" + u.Scheme + "/" + u.Host + u.EscapedPath()
	if u.RawQuery != "" {
		p += "?" + u.RawQuery
	}
	return p
}

// save writes the body beside the file, proves it and renames it.
func (c *getCmd) save(s *session, resp *http.Response, file string, id content.ID) (result got, err error) {
	body := io.Reader(resp.Body)
	if screen := s.terminal(); screen != nil && file != "-" {
		bar := newBar(screen, file)
		if resp.ContentLength > 0 {
			bar.ChangeMax64(resp.ContentLength)
		}
		body = io.TeeReader(body, bar)
		defer func() { _ = bar.Finish() }() // a bar that cannot be drawn stops nothing
	}
	if file == "-" {
		n, err := io.Copy(s.env.Stdout, body)
		return got{File: file, Bytes: n}, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".cistern-*")
	if err != nil {
		return got{}, err
	}
	defer os.Remove(tmp.Name())
	leaves, err := content.HashLeaves(nil, io.TeeReader(body, tmp))
	if err != nil {
		return got{}, errors.Join(err, tmp.Close())
	}
	info, err := tmp.Stat()
	if err := errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return got{}, err
	}
	have := content.ID{Root: content.Root(leaves), Size: info.Size()}
	if !id.IsZero() && have != id {
		return got{}, fmt.Errorf("what came is %s, not %s; nothing was kept", have, id)
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return got{}, err
	}
	return got{File: file, Bytes: info.Size(), ID: have.String(), Proved: !id.IsZero()}, nil
}

// safeName makes a file name out of a title that came from the network: no
// directory, nothing hidden, nothing that a terminal obeys.
func safeName(title string) string {
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r == ':' {
			return '_'
		}
		return r
	}, plain(title))
	name = strings.TrimLeft(name, ".-")
	if len(name) > 200 {
		name = name[len(name)-200:]
	}
	if name == "" {
		return "object"
	}
	return name
}

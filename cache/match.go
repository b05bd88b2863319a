package cache

import (
	"errors"
	"fmt"
	"strings"
)

// Match reports whether a name of an object fits a pattern, in which "*" stands
// for any text. A pattern with "://" is held against the whole of a URL, one with
// the kind of another name in front ("btih:0123*") against names of that kind;
// any other against the host of a URL, or against host and path if it has a
// slash: "*.example.org", "dl.example.org/big/*", "http://*/pool/*.deb". Letters
// of schemes and hosts count as lower case, and the port counts only if the
// pattern has one.
func Match(pattern, called string) bool {
	called, _, _ = strings.Cut(called, "\n") // variants of a URL count as the URL
	scheme, rest, isURL := strings.Cut(called, "://")
	if !isURL {
		kind, _, typed := strings.Cut(called, ":")
		return (!typed || strings.HasPrefix(pattern, kind+":")) && glob(pattern, called)
	}
	if head, tail, ok := strings.Cut(pattern, "://"); ok {
		if !glob(strings.ToLower(head), scheme) {
			return false
		}
		wantHost, wantPath, slash := strings.Cut(tail, "/")
		if !slash || strings.Contains(wantHost, "*") { // a star reaches beyond the host
			return glob(strings.ToLower(wantHost)+tail[len(wantHost):], rest)
		}
		host, path, _ := strings.Cut(rest, "/")
		return fitsHost(wantHost, host) && glob(wantPath, path)
	}
	if scheme != "http" && scheme != "https" {
		return false
	}
	host, path, _ := strings.Cut(rest, "/")
	wantHost, wantPath, slash := strings.Cut(pattern, "/")
	return fitsHost(wantHost, host) && (!slash || glob(wantPath, path))
}

// fitsHost holds a pattern against a host, with or without its port.
func fitsHost(pattern, host string) bool {
	pattern = strings.ToLower(pattern)
	if glob(pattern, host) {
		return true
	}
	i := strings.LastIndexByte(host, ':')
	return i > strings.LastIndexByte(host, ']') && !strings.Contains(pattern, ":") && glob(pattern, host[:i])
}

// CheckPattern says what is wrong with a pattern of [Match].
func CheckPattern(pattern string) error {
	switch {
	case strings.Trim(pattern, "*/:") == "":
		return fmt.Errorf("pattern %q fits everything", pattern)
	case len(pattern) > 1024:
		return errors.New("pattern is longer than 1024 characters")
	case strings.ContainsAny(pattern, "\n\r\x00"):
		return fmt.Errorf("pattern %q has control characters", pattern)
	}
	return nil
}

// glob matches text with a pattern in which "*" stands for any text, in time
// proportional to the product of their lengths.
func glob(pattern, text string) bool {
	head, pattern, star := strings.Cut(pattern, "*")
	if !star {
		return head == text
	}
	text, ok := strings.CutPrefix(text, head)
	if !ok {
		return false
	}
	for {
		part, rest, more := strings.Cut(pattern, "*")
		if !more {
			return strings.HasSuffix(text, part)
		}
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text, pattern = text[i+len(part):], rest
	}
}

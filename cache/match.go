package cache

import (
	"errors"
	"fmt"
	"strings"
)

// Match reports whether a name of an object fits a pattern, in which "*" stands
// for any text. A pattern with "://" or that begins like another kind of name
// ("btih:") is held against the whole name; any other against the host, or
// against host and path if it has a slash: "*.example.org",
// "dl.example.org/big/*", "http://*/pool/*.deb", "btih:0123*". Letters of hosts
// count as lower case.
func Match(pattern, called string) bool {
	called, _, _ = strings.Cut(called, "\n") // variants of a URL count as the URL
	scheme, rest, isURL := strings.Cut(called, "://")
	if strings.Contains(pattern, "://") || !isURL || strings.HasPrefix(pattern, "btih:") {
		return glob(pattern, called)
	}
	if scheme != "http" && scheme != "https" {
		return false
	}
	host, path, _ := strings.Cut(rest, "/")
	wantHost, wantPath, slash := strings.Cut(pattern, "/")
	if !glob(strings.ToLower(wantHost), host) {
		return false
	}
	return !slash || glob(wantPath, path)
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

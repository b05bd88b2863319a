package metalink

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Links is what an answer says about its file (RFC 6249 §2, §5).
type Links struct {
	// Mirrors have the same file, the best first.
	Mirrors []string
	// Torrents and Metalinks describe it.
	Torrents  []Torrent
	Metalinks []string
}

// ParseLinks reads the Link fields of an answer from base. What it does not
// understand it passes over.
func ParseLinks(base *url.URL, h http.Header) Links {
	var mirrors, torrents, metalinks []place
	for _, field := range h.Values("Link") {
		for rest := field; rest != "" && len(mirrors)+len(torrents)+len(metalinks) < MaxLinks; {
			var target string
			var params map[string]string
			if target, params, rest = nextLink(rest); target == "" {
				continue
			}
			u, err := base.Parse(target)
			if err != nil || params["anchor"] != "" {
				continue // it speaks of something else
			}
			u.Fragment = ""
			p := place{URL: u.String(), Name: params["name"]}
			p.Priority, _ = strconv.Atoi(params["pri"])
			relations := strings.Fields(strings.ToLower(params["rel"]))
			switch kind := strings.ToLower(params["type"]); {
			case slices.Contains(relations, "duplicate"):
				mirrors = append(mirrors, p)
			case !slices.Contains(relations, "describedby"):
			case kind == torrentType:
				torrents = append(torrents, p)
			case kind == meta4Type:
				metalinks = append(metalinks, p)
			}
		}
	}
	var l Links
	for _, p := range inOrder(mirrors) {
		l.Mirrors = append(l.Mirrors, p.URL)
	}
	for _, p := range inOrder(torrents) {
		l.Torrents = append(l.Torrents, Torrent{p.URL, p.Name})
	}
	for _, p := range inOrder(metalinks) {
		l.Metalinks = append(l.Metalinks, p.URL)
	}
	return l
}

// nextLink reads one link-value of a field (RFC 8288 §3) and gives what follows
// it. The first of several parameters with one name counts.
func nextLink(s string) (target string, params map[string]string, rest string) {
	s = strings.TrimLeft(s, " \t,")
	target, s, ok := strings.Cut(strings.TrimPrefix(s, "<"), ">")
	if !ok {
		return "", nil, ""
	}
	params = map[string]string{}
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" || s[0] != ';' {
			_, rest, _ = strings.Cut(s, ",")
			return strings.TrimSpace(target), params, rest
		}
		var key, value string
		key, value, s = nextParam(s[1:])
		if _, known := params[key]; !known {
			params[key] = value
		}
	}
}

// nextParam reads name[=value], the value a token or a quoted string.
func nextParam(s string) (key, value, rest string) {
	end := strings.IndexAny(s, "=;,")
	if end < 0 {
		end = len(s)
	}
	key, s = strings.ToLower(strings.TrimSpace(s[:end])), s[end:]
	if s == "" || s[0] != '=' {
		return key, "", s
	}
	s = strings.TrimLeft(s[1:], " \t")
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ";,")
		if end < 0 {
			end = len(s)
		}
		return key, strings.TrimSpace(s[:end]), s[end:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return key, b.String(), s[i+1:]
		case '\\':
			if i++; i == len(s) {
				return key, b.String(), ""
			}
		}
		b.WriteByte(s[i])
	}
	return key, b.String(), "" // the end of the string is missing
}

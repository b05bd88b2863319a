package image

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Modules is the index of the kernel modules of a system: what modules.dep and
// modules.alias are elsewhere, made from the modules themselves.
type Modules struct {
	// Files by module name, as paths from the root.
	Files map[string]string `json:"files"`
	// Needs by module name: names that must be loaded before.
	Needs map[string][]string `json:"needs"`
	// Aliases in the order in which they are tried.
	Aliases []Alias `json:"aliases"`
}

// Alias says that a module serves whatever matches a pattern as in path.Match,
// in which * also stands for slashes.
type Alias struct {
	Pattern string `json:"pattern"`
	Module  string `json:"module"`
}

// ModuleName is the name under which the kernel knows a file: without suffixes
// and with underscores.
func ModuleName(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// Order gives the modules that serve a name or an alias, each behind what it
// needs, ready to be loaded one by one. None is an empty answer, not an error.
func (m *Modules) Order(alias string) ([]string, error) {
	var order []string
	name := strings.ReplaceAll(alias, "-", "_")
	if _, ok := m.Files[name]; ok {
		return order, m.visit(name, &order, 0)
	}
	for _, a := range m.Aliases {
		if match(a.Pattern, alias) {
			if err := m.visit(a.Module, &order, 0); err != nil {
				return nil, err
			}
		}
	}
	return order, nil
}

func (m *Modules) visit(name string, order *[]string, depth int) error {
	if slices.Contains(*order, name) {
		return nil
	}
	if depth > 32 {
		return fmt.Errorf("module %s needs itself", name)
	}
	for _, need := range m.Needs[name] {
		if err := m.visit(need, order, depth+1); err != nil {
			return err
		}
	}
	if _, ok := m.Files[name]; ok && !slices.Contains(*order, name) {
		*order = append(*order, name)
	}
	return nil
}

// match is fnmatch with *, ? and sets such as [0-9]; device aliases hold all
// three.
func match(pattern, s string) bool {
	for pattern != "" {
		switch pattern[0] {
		case '*':
			rest := strings.TrimLeft(pattern, "*")
			if rest == "" {
				return true
			}
			for i := range len(s) + 1 {
				if match(rest, s[i:]) {
					return true
				}
			}
			return false
		case '[':
			end := strings.IndexByte(pattern, ']')
			if end < 0 || s == "" {
				return false
			}
			if ok, err := path.Match(pattern[:end+1], s[:1]); !ok || err != nil {
				return false
			}
			pattern, s = pattern[end+1:], s[1:]
		default:
			if s == "" || pattern[0] != '?' && pattern[0] != s[0] {
				return false
			}
			pattern, s = pattern[1:], s[1:]
		}
	}
	return s == ""
}

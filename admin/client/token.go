package client

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// TokenFile is the name of the token's file in a box's data directory.
const TokenFile = "admin.token"

// FindToken gives the admin token for a box: the explicit one, else the
// environment's CISTERN_TOKEN (getenv is os.Getenv), else the file in dataDir
// if the box is on this machine. It gives "" if there is none, and an error
// that wraps fs.ErrPermission if there is a file that this user may not read.
func FindToken(explicit string, getenv func(string) string, dataDir, box string) (string, error) {
	if explicit != "" {
		return explicit, nil
	}
	if token := getenv("CISTERN_TOKEN"); token != "" {
		return token, nil
	}
	if dataDir == "" || !here(box) {
		return "", nil
	}
	data, err := os.ReadFile(filepath.Join(dataDir, TokenFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("find token: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// here reports whether a box's address is one of this machine: the token of the
// box that lives here is no other box's business.
func here(box string) bool {
	if box == "" {
		return true
	}
	u, err := url.Parse(box)
	if err != nil {
		return false
	}
	if u.Hostname() == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return false
	}
	if addr.IsLoopback() {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr.Unmap() {
			return true
		}
	}
	return false
}

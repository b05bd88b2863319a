package client

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Snippets renders the lines that make a DHCP server announce the box's proxy
// configuration (option 252, WPAD) to the LAN. address is what clients shall
// ask: an IP address or a host name, with a port (3142 if there is none). It
// asks nobody; what it writes contains nothing but what it has checked.
func Snippets(address string) ([]Snippet, error) {
	host, err := announced(address)
	if err != nil {
		return nil, err
	}
	pac := "http://" + host + "/wpad.dat"
	return []Snippet{
		{"dnsmasq", "/etc/dnsmasq.d/cistern.conf, then restart dnsmasq", "dhcp-option=252,\"" + pac + "\""},
		{"kea", "inside \"Dhcp4\" of kea-dhcp4.conf, then reload", keaText(pac)},
		{"isc", "dhcpd.conf, at the top, then restart isc-dhcp-server", "option wpad code 252 = text;\noption wpad \"" + pac + "\";"},
		{"openwrt", "in a shell on the router", strings.Join([]string{
			"uci add_list dhcp.lan.dhcp_option='252," + pac + "'",
			"uci commit dhcp",
			"/etc/init.d/dnsmasq restart",
		}, "\n")},
	}, nil
}

// keaText gives the option as a string option of its own: Kea knows no 252.
func keaText(pac string) string {
	return `"option-def": [
  { "name": "wpad", "code": 252, "space": "dhcp4", "type": "string" }
],
"option-data": [
  { "name": "wpad", "space": "dhcp4", "data": "` + pac + `" }
]`
}

// announced checks an address that clients shall ask and writes it as host:port.
func announced(address string) (string, error) {
	host, port := address, "3142"
	if h, p, err := net.SplitHostPort(address); err == nil {
		host, port = h, p
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("address %q: %q is not a port", address, port)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" {
			return "", fmt.Errorf("address %q: clients cannot ask %s; give the box's address on the LAN", address, host)
		}
		return net.JoinHostPort(addr.Unmap().String(), port), nil
	}
	if !hostName(host) {
		return "", fmt.Errorf("address %q: want an IP address or host name of the box, such as 192.168.1.2:3142", address)
	}
	return net.JoinHostPort(host, port), nil
}

// hostName accepts the names of RFC 1123 §2.1, so that nothing else can slip
// into a configuration file. A name of digits and dots alone is an address
// that was mistyped.
func hostName(s string) bool {
	if len(s) == 0 || len(s) > 253 || strings.Trim(s, "0123456789.") == "" {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
		if strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

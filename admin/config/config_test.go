package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cistern-edge/cistern/cache"
)

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name, file string
		want       []string // one for each fault, in order
	}{
		{"nothing", "", nil},
		{"only comments", "# hello\n\n# again\n", nil},
		{"version of the future", "version = 2\n", []string{"line 1: version: is 2; this program knows 1"}},
		{"unknown section", "[proxi]\nlisten = ':1'\n", []string{`line 1: proxi: is not a known key; did you mean "proxy"?`}},
		{"unknown key", "[store]\n\nmax_byte = 1\n", []string{`line 3: store.max_byte: is not a known key; did you mean "max_bytes"?`}},
		{"hyphen for underscore", "[store]\nmax-bytes = '1GB'\n", []string{`did you mean "max_bytes"?`}},
		{"key outside its section", "listen = ':1'\n", []string{"line 1: listen: is not a known key"}},
		{"dotted unknown key", "proxy.x.y = 1\n", []string{"line 1: proxy.x: is not a known key"}},
		{"mirrors", "[[peering.mirror]]\nmatch = ['*.iso']\nurl = 'https://m.example/pub/'\n", nil},
		{
			"faulty mirrors", "[[peering.mirror]]\nmatch = ['[']\nurl = 'ftp://m.example/'\n[[peering.mirror]]\nurl = 'http://m.example/'\n",
			[]string{"peering.mirror[0].match", "peering.mirror[0].url", "peering.mirror[1].match"},
		},
		{"no TOML", "a = \n", []string{"line 1"}},
		{"same key twice", "[log]\nlevel='info'\nlevel='warn'\n", []string{"level"}},
		{"section that is a value", "store = 3\n", []string{"line 1: store: is a number, want a table"}},
		{"list that is a text", "[proxy]\nclients = '10.0.0.0/8'\n", []string{"line 2: proxy.clients: is a text, want a list"}},
		{"number that is a text", "[multicast]\nttl = '1'\n", []string{"line 2: multicast.ttl: is a text, want a whole number"}},
		{"text that is a number", "[proxy]\nlisten = 3142\n", []string{"line 2: proxy.listen: is a number, want a text in quotes"}},
		{"bool that is a text", "[peering]\nenabled = 'yes'\n", []string{"peering.enabled: is a text, want true or false"}},
		{"fraction", "[multicast]\nttl = 1.5\n", []string{"multicast.ttl: is a number, want a whole number"}},
		{"date", "[store]\ndir = 2020-01-01\n", []string{"store.dir: is a date or time, want a text"}},
		{"negative size", "[store]\nmin_free = -1\n", []string{"store.min_free: -1 is out of range"}},
		{"volume twice", "[store]\ndir = '/a'\nvolumes = ['/b', '/a/', '', '/b']\n", []string{`line 3: store.volumes: "/a/" is named twice`, "names no directory", `"/b" is named twice`}},
		{"bounds of memory", "[store]\nram = 5\nsmall_bytes = '1TB'\n", []string{"line 2: store.ram: 5 is not between", "line 3: store.small_bytes: 1TB is more than max_bytes (50GB)"}},
		{"period in no unit", "[store]\nscrub_period = '14'\n", []string{`line 2: store.scrub_period: period "14": write it like`}},
		{"period too short", "[store]\nscrub_period = '3m'\n", []string{"3m is not between 1h and 366d"}},
		{"no scrub", "[store]\nscrub_period = 0\n", nil},
		{"quota that is a text", "[store]\nquota = 'steam'\n", []string{"line 2: store.quota: is a text, want a list"}},
		{"quotas in a line", "[store]\nquota = [{name = 'a', match = ['*.a'], max_bytes = 1}]\n", []string{"line 2: store.quota[0].max_bytes: 1 is less than 1MiB"}},
		{
			"quotas",
			"[[store.quota]]\nname = 'a'\nmatch = ['*']\nmax_bytes = '5XB'\n\n[[store.quota]]\nname = 'a'\nmax_byte = '1GB'\n" +
				"[[store.quota]]\nname = 'ok'\nmatch = ['*.example.org', 'dl.example.org/big/*']\nmax_bytes = '10GB'\n",
			[]string{
				`line 3: store.quota[0].match: pattern "*" fits everything`,
				`line 4: store.quota[0].max_bytes: size "5XB"`,
				"line 6: store.quota[1].match: names nothing",
				"line 6: store.quota[1].max_bytes: 0 is less than 1MiB",
				`line 7: store.quota[1].name: "a" is used twice`,
				`line 8: store.quota[1].max_byte: is not a known key; did you mean "max_bytes"?`,
			},
		},
		{"list in a list", "[admin]\nnames = [['a']]\n", []string{"admin.names: is a list, want a text"}},
		{
			"everything at once",
			"nonsense = 1\n[proxy]\nlisten = 'here'\nclients = ['10.0.0.1/8', 'x', '10.0.0.0/8']\nallow_destinations = ['x:1']\n" +
				"[store]\ndir = ''\nmax_bytes = '5XB'\n[multicast]\nmode = 'both'\nttl = 0\nrate = '100'\n[log]\nlevel = 'loud'\n",
			[]string{
				"line 1: nonsense: is not a known key",
				`line 3: proxy.listen: "here" is not address:port`,
				"line 4: proxy.clients: network \"10.0.0.1/8\": has bits beyond its mask; 10.0.0.0/8 is the network",
				`line 4: proxy.clients: network "x"`,
				`line 5: proxy.allow_destinations: destination "x:1"`,
				"line 7: store.dir: names no directory",
				`line 8: store.max_bytes: size "5XB": has no unit known here ("XB")`,
				`line 10: multicast.mode: "both" is none of ["ssm" "asm"]`,
				"line 11: multicast.ttl: 0 is not between 1 and 255",
				"line 12: multicast.rate: 100bit is not between 100kbit and 100Gbit",
				`line 14: log.level: "loud" is none of`,
			},
		},
		{"panel on the proxy's port", "[admin]\nlisten = '127.0.0.1:3142'\n", []string{"admin.listen: 127.0.0.1:3142 is the proxy's"}},
		{"panel on the proxy's port of all addresses", "[proxy]\nlisten = ':80'\n[admin]\nlisten = '10.0.0.1:80'\n", []string{"is the proxy's"}},
		{"port of the system's choice", "[proxy]\nlisten = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'\n", nil},
		{"host name to listen on", "[proxy]\nlisten = 'box.lan:3142'\n", []string{`"box.lan" is not an IP address`}},
		{"port too high", "[peering]\nlisten = ':70000'\n", []string{`"70000" is not a port`}},
		{"advertised without port", "[proxy]\nadvertise = 'box.lan'\n", []string{"is not host:port"}},
		{"advertised with port 0", "[proxy]\nadvertise = 'box.lan:0'\n", []string{"is not host:port"}},
		{"advertised nonsense", "[proxy]\nadvertise = 'a b:1'\n", []string{"is not host:port"}},
		{"name with port", "[admin]\nnames = ['box:8080', 'ok.lan', '-x']\n", []string{`"box:8080"`, `"-x"`}},
		{"session too long", "[admin]\nsession = '8760h'\n", []string{"is not between 1m and 720h"}},
		{"session in no unit", "[admin]\nsession = '12'\n", []string{"duration \"12\""}},
		{"empty network", "[peering]\nlan = ['']\n", []string{"peering.lan: names an empty network"}},
		{"empty destination", "[proxy]\nallow_destinations = ['']\n", []string{"proxy.allow_destinations: names an empty network"}},
		{"destination with port 0", "[proxy]\nallow_destinations = ['10.0.0.1:0']\n", []string{"want a port from 1"}},
		{"no connections", "[peering]\nmax_connections = 0\n", []string{"0 is not between 1 and 1000"}},
		{"interface twice", "[multicast]\ninterfaces = ['eth0', 'eth0', 'a/b']\n", []string{`"eth0" is named twice`, `"a/b" is not`}},
		{"unicast groups", "[multicast]\ngroups = '10.0.0.0/8'\n", []string{"is not a range of multicast addresses"}},
		{"asm groups for ssm", "[multicast]\ngroups = '239.1.0.0/16'\n", []string{"is not source-specific"}},
		{"ssm groups for asm", "[multicast]\nmode = 'asm'\ngroups = '232.1.0.0/16'\n", []string{"is source-specific"}},
		{"routing's groups", "[multicast]\nmode = 'asm'\ngroups = '224.0.0.0/24'\n", []string{"belongs to routing protocols"}},
		{"too few groups", "[multicast]\ngroups = '232.1.2.0/25'\n", []string{"fewer than 256"}},
		{"IPv6 groups", "[multicast]\ngroups = 'ff35::/64'\n", nil},
		{"no least size", "[multicast]\nmin_size = 0\n", []string{"multicast.min_size: 0 is less than 1B"}},
	} {
		_, err := Parse([]byte(c.file))
		var faults Faults
		if err != nil && !errors.As(err, &faults) {
			t.Errorf("%s: %T %v", c.name, err, err)
			continue
		}
		if len(faults) != len(c.want) {
			t.Errorf("%s: %d faults, want %d:\n%v", c.name, len(faults), len(c.want), err)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(faults[i].Error(), want) {
				t.Errorf("%s: fault %d is %q, want %q", c.name, i, faults[i].Error(), want)
			}
		}
	}
}

func TestDocumentedKeys(t *testing.T) {
	cfg, err := Parse([]byte(`
[proxy]
listen = "127.0.0.1:3142"
clients = []
allow_destinations = ["10.0.0.0/8", "127.0.0.1:8090", "192.0.2.1", "[fd00::1]:80"]
[admin]
listen = "127.0.0.1:8080"
[store]
dir = "./var"
max_bytes = "50GB"
[peering]
max_connections = 20
[multicast]
interfaces = ["eth0"]
mode = "ssm"
ttl = 1
rate = "100Mbit"
`))
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, d := range cfg.Proxy.AllowDestinations {
		open = append(open, d.String())
	}
	if want := []string{"10.0.0.0/8", "127.0.0.1:8090", "192.0.2.1/32", "[fd00::1]:80"}; !slices.Equal(open, want) {
		t.Errorf("destinations are %v, want %v", open, want)
	}
	if c := cfg.Store.Cache(); c.Dir != "./var" || c.MaxBytes != 50e9 || c.MinFree != 0 || c.ScrubPeriod != 14*24*time.Hour || c.Validate() != nil {
		t.Errorf("the store gets %+v", c)
	}
	if cfg.Multicast.Rate != 100e6 || cfg.Multicast.GroupRange() != netip.MustParsePrefix("232.77.0.0/16") {
		t.Errorf("multicast is %+v", cfg.Multicast)
	}
	cfg.Multicast.Mode = "asm"
	if got := cfg.Multicast.GroupRange().String(); got != "239.77.0.0/16" {
		t.Errorf("groups for asm are %s", got)
	}
}

func TestTheStoreGetsItsSection(t *testing.T) {
	cfg, err := Parse([]byte(`
[store]
dir = "/a"
volumes = ["/b"]
small_bytes = "1GB"
ram = "64MiB"
scrub_period = "off"
[[store.quota]]
name = "steam"
match = ["*.steamcontent.com"]
max_bytes = "10GB"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := cache.Config{
		Dir: "/a", Volumes: []string{"/b"}, MaxBytes: 50e9, SmallBytes: 1e9, RAM: 64 << 20, ScrubPeriod: -1,
		Quotas: []cache.Quota{{Name: "steam", Match: []string{"*.steamcontent.com"}, MaxBytes: 10e9}},
	}
	if got := cfg.Store.Cache(); !reflect.DeepEqual(got, want) || got.Validate() != nil {
		t.Errorf("the store gets %+v, want %+v", got, want)
	}
}

func TestPeriods(t *testing.T) {
	for text, want := range map[string]Period{"14d": Period(14 * day), "off": 0, "0": 0, "0d": 0, "36h": Period(36 * time.Hour), "48h": Period(2 * day)} {
		var p, again Period
		if err := p.UnmarshalText([]byte(text)); err != nil || p != want {
			t.Errorf("period %q is %v, %v", text, time.Duration(p), err)
		}
		if err := again.UnmarshalText([]byte(p.String())); err != nil || again != p {
			t.Errorf("period %v is written %q and read as %v: %v", time.Duration(p), p, time.Duration(again), err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "-1h", "1.5d", "14", "70000d", "on"} {
		var p Period
		if err := p.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("period %q was read as %v", text, time.Duration(p))
		}
	}
}

func TestDefaultIsValid(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	cfg, err := Parse(nil)
	if err != nil || !reflect.DeepEqual(cfg, Default()) {
		t.Errorf("an empty file is %+v, %v", cfg, err)
	}
}

func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cistern.toml")
	cfg := Default()
	cfg.Proxy.Clients = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	cfg.Proxy.AllowDestinations = []Destination{{netip.MustParsePrefix("127.0.0.1/32"), 8090}, {Prefix: netip.MustParsePrefix("10.0.0.0/8")}}
	cfg.Admin.Names = []string{"box.lan"}
	cfg.Admin.Session = Duration(90 * time.Minute)
	cfg.Store.MaxBytes, cfg.Store.MinFree = 123_456_789, 3<<30
	cfg.Store.Volumes, cfg.Store.SmallBytes, cfg.Store.RAM, cfg.Store.ScrubPeriod = []string{"/mnt/b", "/mnt/c"}, 5<<20, 64<<20, Period(36*time.Hour)
	cfg.Store.Quotas = []Quota{{"steam", []string{"*.steamcontent.com", "lancache/*"}, 10e9}, {"apt", []string{"http://*/pool/*.deb"}, 5e9}}
	cfg.Multicast = Multicast{Interfaces: []string{"eth0"}, Mode: "asm", Groups: netip.MustParsePrefix("239.1.0.0/16"), Port: 6004, TTL: 8, Rate: 2_500_000_000, MinSize: 1 << 20, MinAgents: 3}
	if err := cfg.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || !reflect.DeepEqual(got, cfg) {
		t.Errorf("what was saved came back as\n%+v, want\n%+v: %v", got, cfg, err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log.Level = "loud"
	if err := cfg.Save(path); err == nil {
		t.Error("a faulty configuration was saved")
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Errorf("the file has changed: %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("files left over: %v %v", left, err)
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(path, []byte("x = 1\ny = 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	want := path + ":1: x: is not a known key\n" + path + ":2: y: is not a known key"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if _, err := Load(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.Truncate(path, maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "is larger than") {
		t.Errorf("a huge file: %v", err)
	}
}

func TestQuantities(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "17": 17, "17B": 17, "50GB": 50e9, "50 GB": 50e9, "64MiB": 64 << 20, "64mib": 64 << 20, "1kB": 1000, "9223372036854775807": 1<<63 - 1,
		"2TiB": 2 << 40,
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("size %q is %d, %v; want %d", text, int64(s), err, int64(want))
		}
		var again Size
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("size %d is written %q and read as %d: %v", int64(s), s, int64(again), err)
		}
	}
	for _, text := range []string{"", "GB", "-1GB", "1.5GB", "1XB", "1  GB", "９GB", "9223372036854775808", "10000000TB", "99999999999999999999"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("size %q was read as %d", text, int64(s))
		}
	}
	for text, want := range map[string]Rate{"100Mbit": 100e6, "100mbit/s": 100e6, "1Gbit": 1e9, "512kbit": 512e3, "9bit": 9, "0": 0} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("rate %q is %d, %v; want %d", text, int64(r), err, int64(want))
		}
	}
	var r Rate
	if err := r.UnmarshalText([]byte("100MB")); err == nil {
		t.Error("bytes were taken for bits")
	}
	for d, want := range map[time.Duration]string{12 * time.Hour: "12h", 90 * time.Minute: "1h30m", 90 * time.Second: "1m30s", 20 * time.Second: "20s", 0: "0s"} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		}
	}
}

// FuzzParse holds every file to: no panic, and what is accepted survives being
// written and read.
func FuzzParse(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("version = 1\n[proxy]\nlisten = ':3142'\nallow_destinations = ['10.0.0.0/8']\n"))
	f.Add([]byte("proxy.listen = 3\nproxy = {clients = [[1]]}\n[[store]]\ndir = 2020-01-01\n"))
	f.Add([]byte("[multicast]\ngroups='ff35::/64'\nrate='1Gbit/s'\nttl=0x10\n[\"a.b\".'c']\n"))
	f.Add([]byte("[[store.quota]]\nname='a'\nmatch=['*.a']\nmax_bytes='1GB'\n[[store.quota]]\n[store]\nscrub_period='0d'\nvolumes=['b']\n"))
	f.Add([]byte("[store]\nmax_bytes = 999999999999999999\nmin_free = '7KiB'\n[log]\nlevel='debug'"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse(data)
		if err != nil {
			var faults Faults
			if !errors.As(err, &faults) || len(faults) == 0 {
				t.Fatalf("error is %T: %v", err, err)
			}
			return
		}
		path := filepath.Join(dir, "c.toml")
		if err := cfg.Save(path); err != nil {
			t.Fatalf("what was accepted cannot be saved: %v", err)
		}
		again, err := Load(path)
		if err != nil || !reflect.DeepEqual(again, cfg) {
			t.Fatalf("%+v came back as %+v: %v", cfg, again, err)
		}
	})
}

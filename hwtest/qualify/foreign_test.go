package qualify

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/cistern-edge/cistern/admin/client"
)

func TestParseNVMe(t *testing.T) {
	log := make([]byte, nvmeLogBytes)
	le := binary.LittleEndian
	log[5] = 42
	le.PutUint16(log[1:], 273+51)
	le.PutUint64(log[128:], 12345)
	le.PutUint64(log[160:], 2)
	w, err := parseNVMe(log)
	if want := (client.Wear{Source: "nvme", PercentUsed: 42, Celsius: 51, PowerOnHours: 12345, MediaErrors: 2}); err != nil || w != want {
		t.Errorf("%+v, %v", w, err)
	}
	for bit, failing := range []bool{true, false, true, true, true} {
		log[0] = 1 << bit
		if w, _ := parseNVMe(log); w.Failing != failing {
			t.Errorf("warning bit %d: %+v", bit, w)
		}
	}
	if _, err := parseNVMe(log[:100]); err == nil {
		t.Error("a short log passed")
	}
}

// smart makes a sector of attributes: id, flags, value, raw.
func smart(attributes ...[4]int) []byte {
	b := make([]byte, ataDataBytes)
	for i, a := range attributes {
		at := b[2+12*i:]
		at[0], at[1], at[3] = byte(a[0]), byte(a[1]), byte(a[2])
		binary.LittleEndian.PutUint32(at[5:], uint32(a[3]))
	}
	return sealed(b)
}

// sealed sets the last byte so that all add up to 0.
func sealed(b []byte) []byte {
	sum := byte(0)
	for _, c := range b[:ataDataBytes-1] {
		sum += c
	}
	b[ataDataBytes-1] = -sum
	return b
}

func TestParseATA(t *testing.T) {
	data := smart([4]int{5, 3, 100, 7}, [4]int{9, 2, 99, 4321}, [4]int{177, 3, 88, 1}, [4]int{194, 2, 60, 38}, [4]int{197, 2, 100, 1})
	w, err := parseATA(data, nil)
	want := client.Wear{Source: "ata", PercentUsed: 12, Reallocated: 7, PowerOnHours: 4321, Celsius: 38, Pending: 1}
	if err != nil || w != want {
		t.Errorf("%+v, %v", w, err)
	}
	limits := make([]byte, ataDataBytes)
	limits[2], limits[3] = 5, 100
	if w, err = parseATA(data, sealed(limits)); err != nil || !w.Failing {
		t.Errorf("at its threshold: %+v, %v", w, err)
	}
	data[511]++
	if _, err := parseATA(data, nil); err == nil {
		t.Error("a sector whose sum is wrong passed")
	}
	if _, err := parseATA(make([]byte, ataDataBytes), nil); err == nil {
		t.Error("an empty sector passed")
	}
}

func TestParseMMC(t *testing.T) {
	for _, c := range []struct {
		life, warning string
		used          int
		failing, ok   bool
	}{
		{"0x01 0x03", "0x01", 30, false, true},
		{"0x00 0x00", "0x00", -1, false, true},
		{"0x0b 0x01", "0x01", 100, true, true},
		{"0x02 0x02", "0x03", 20, true, true},
		{"0xff", "", 0, false, false},
		{"much", "", 0, false, false},
	} {
		w, err := parseMMC(c.life, c.warning)
		if (err == nil) != c.ok || c.ok && (w.PercentUsed != c.used || w.Failing != c.failing) {
			t.Errorf("%q %q: %+v, %v", c.life, c.warning, w, err)
		}
	}
}

func TestTally(t *testing.T) {
	var y tally
	for _, n := range []uint64{0, 1, 3, 2, 5, 5, 70_000, 6} {
		y.add(packet{run: 1, num: n})
	}
	y.add(packet{run: 2, num: 4}) // somebody else's
	if r := y.result(); r.Sent != 70_001 || r.Received != 7 || r.Reordered != 2 || r.Duplicates != 1 || r.Lost != 70_001-7 {
		t.Errorf("before the sender's word: %+v", r)
	}
	y.add(packet{run: 1, total: 70_010})
	if r := y.result(); r.Sent != 70_010 || r.Lost != 70_010-7 {
		t.Errorf("after it: %+v", r)
	}
}

// queries are IGMP queries of each version, and what is none.
func query(igmp ...byte) []byte {
	ip := []byte{0x46, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 1, 224, 0, 0, 1, 0x94, 4, 0, 0}
	ip = append(ip, igmp...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	return ip
}

func TestParseQuery(t *testing.T) {
	for _, c := range []struct {
		name    string
		ip      []byte
		version int
	}{
		{"v1", query(0x11, 0, 0, 0, 0, 0, 0, 0), 1},
		{"v2", query(0x11, 100, 0, 0, 0, 0, 0, 0), 2},
		{"v3", query(0x11, 100, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0), 3},
		{"v2, padded by Ethernet", append(query(0x11, 100, 0, 0, 0, 0, 0, 0), make([]byte, 20)...), 2},
		{"report", query(0x16, 0, 0, 0, 0, 0, 0, 0), 0},
		{"short", query(0x11, 0, 0), 0},
		{"empty", nil, 0},
	} {
		from, version, ok := parseQuery(c.ip)
		if ok != (c.version > 0) || version != c.version || ok && from != [4]byte{10, 0, 0, 1} {
			t.Errorf("%s: %v, %d, %v", c.name, from, version, ok)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	f.Add(query(0x11, 100, 0, 0, 0, 0, 0, 0))
	f.Add(query(0x11, 100, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0))
	f.Fuzz(func(t *testing.T, ip []byte) {
		if _, version, ok := parseQuery(ip); ok != (version >= 1 && version <= 3) {
			t.Errorf("version %d, %v", version, ok)
		}
	})
}

func FuzzParsePacket(f *testing.F) {
	b := make([]byte, packetBytes)
	packet{run: 1, num: 2}.put(b)
	f.Add(b)
	f.Add(b[:headBytes])
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parsePacket(b)
		if !ok {
			return
		}
		var y tally
		y.add(p)
		if r := y.result(); r.Received > 1 || r.Lost > r.Sent {
			t.Errorf("%+v of %+v", r, p)
		}
	})
}

func FuzzParseHealth(f *testing.F) {
	f.Add(smart([4]int{5, 3, 100, 7}), "0x01 0x02")
	f.Fuzz(func(t *testing.T, b []byte, life string) {
		for _, parse := range []func() (client.Wear, error){
			func() (client.Wear, error) { return parseNVMe(b) },
			func() (client.Wear, error) { return parseATA(b, b) },
			func() (client.Wear, error) { return parseMMC(life, life) },
		} {
			if w, err := parse(); err == nil && (w.Source == "" || w.PercentUsed < -1) {
				t.Errorf("%+v", w)
			}
		}
	})
}

func TestPatterns(t *testing.T) {
	words := make([]uint64, 1000)
	if wrong := patterns(words, rand.Uint64()); wrong != 0 {
		t.Errorf("%d words of sound memory are wrong", wrong)
	}
	for i, w := range words { // the last pattern stays: it numbers the words
		if w^words[0] != uint64(i) {
			t.Fatalf("word %d is %x", i, w)
		}
	}
}

package norm

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Every message of libnorm is understood, and encoded again it is the same.
func TestCapturesSurviveTheCodec(t *testing.T) {
	kinds := map[string]int{}
	for _, name := range captures {
		for i, c := range readCapture(t, name) {
			m, err := Parse(c.msg)
			if err != nil {
				t.Fatalf("%s message %d: %v", name, i, err)
			}
			kinds[strings.TrimPrefix(fmt.Sprintf("%T", m), "*norm.")]++
			if again := m.Append(nil); !bytes.Equal(again, c.msg) {
				t.Fatalf("%s message %d, %T:\n in %x\nout %x", name, i, m, c.msg, again)
			}
		}
	}
	t.Log(kinds)
	for _, want := range []string{"Info", "Data", "Flush", "Squelch", "CC", "Nack", "Ack"} {
		if kinds[want] == 0 {
			t.Errorf("no %s in the captures", want)
		}
	}
}

// The fields of some captured messages, as the capture's notes have them.
func TestFieldsOfCaptures(t *testing.T) {
	all := readCapture(t, "norm1")
	first := map[string]Message{}
	for _, c := range all {
		m, err := Parse(c.msg)
		if err != nil {
			t.Fatal(err)
		}
		if k := fmt.Sprintf("%T", m); first[k] == nil {
			first[k] = m
		}
	}
	data := first["*norm.Data"].(*Data)
	fti, ok := data.Ext.FTI(data.FEC)
	if want := (FTI{3000007, 1400, 64, 16}); !ok || fti != want {
		t.Errorf("FTI %+v, want %+v", fti, want)
	}
	if data.Flags != FlagInfo|FlagFile || data.FEC != FECReedSolomon || data.Backoff != 4 || unquantizeGroup(data.GroupSize) != 1000 {
		t.Errorf("DATA %+v", data)
	}
	if d := unquantizeRTT(data.GRTT).Round(10 * time.Microsecond); d != 52950*time.Microsecond {
		t.Errorf("GRTT %v", d)
	}
	if rate, ok := first["*norm.CC"].(*CC).Ext.Rate(); !ok || unquantizeRate(rate) != 2.5e6 {
		t.Errorf("rate %#x", rate)
	}
	flush := first["*norm.Flush"].(*Flush)
	var nodes []NodeID
	for id := range flush.Nodes.All() {
		nodes = append(nodes, id)
	}
	if fmt.Sprint(nodes, flush.Position) != "[1001 1002 1003] 0:33:62" {
		t.Errorf("FLUSH at %v for %v", flush.Position, nodes)
	}
	var asked []string
	for q := range first["*norm.Nack"].(*Nack).Requests.All() {
		asked = append(asked, fmt.Sprintf("form %d level %d %v-%v", q.Form, q.Level, q.First, q.Last))
	}
	if asked[0] != "form 2 level 8 64513:0:0-65535:0:0" {
		t.Errorf("NACK asks %q", asked)
	}
	if cc, ok := first["*norm.Ack"].(*Ack).Ext.CC(); !ok || cc.Loss != 0xf3 || cc.LossLow != 0xa0d5 {
		t.Errorf("EXT_CC %+v", cc)
	}
}

// messages holds one of each kind, with extensions where they belong.
func messages() []Message {
	head := Header{Sequence: 7, Source: 42}
	sh := SenderHeader{Header: head, Instance: 99, GRTT: 127, Backoff: 4, GroupSize: 2}
	withFTI := sh
	withFTI.Ext = Extensions(nil).AppendFTI(FTI{1 << 40, 1400, 64, 16}).AppendRate(0x4006).appendAuth(32)
	withCC := head
	withCC.Ext = Extensions(nil).AppendCC(CCFeedback{1, CCFlagRTT, 2, 3, 4, 5})
	pos := Position{3, 0xabcdef, 200}
	w := requestWriter{limit: 1400}
	w.add(LevelSegment, FECReedSolomon, pos, pos, 0)
	w.add(LevelSegment, FECReedSolomon, pos, Position{3, 0xabcdef, 210}, 0)
	w.add(LevelBlock, FECSmallBlock, Position{4, 1, 0}, Position{4, 9, 0}, 64)
	w.add(LevelObject|LevelInfo, FECReedSolomon, Position{5, 0, 0}, Position{5, 0, 0}, 0)
	at := Timestamp{1000, 999_999}
	return []Message{
		&Info{withFTI, FlagInfo, FECReedSolomon, 3, []byte("name")},
		&Data{withFTI, FlagRepair, FECReedSolomon, pos, 0, []byte("symbol")},
		&Data{sh, 0, FECSmallBlock, Position{3, 1 << 31, 300}, 64, nil},
		&Flush{sh, FECReedSolomon, pos, 0, NodeList(nil).Append(1).Append(2)},
		&EOT{sh},
		&Squelch{sh, FECReedSolomon, pos, 0, []byte{0, 1, 0, 2}},
		&CC{withFTI, 5, at, CCItems(nil).Append(CCItem{9, CCFlagCLR, 3, 4})},
		&RepairAdv{sh, AdvLimit, w.out},
		&AckReq{sh, 16, 3, NodeList(nil).Append(7)},
		&Application{sh, []byte("app")},
		&Nack{withCC, 42, 99, at, w.out},
		&Ack{withCC, 42, 99, AckCC, 3, at, nil},
		&Ack{head, 42, 99, AckFlush, 0, at, []byte{5, 0, 0, 3, 0, 0, 1, 62}},
	}
}

func TestEachMessageSurvivesTheCodec(t *testing.T) {
	for _, m := range messages() {
		b := m.Append([]byte("before"))
		again, err := Parse(b[6:])
		if err != nil {
			t.Errorf("%T: %v", m, err)
			continue
		}
		if got := again.Append([]byte("before")); !bytes.Equal(got, b) {
			t.Errorf("%T:\n in %x\nout %x", m, b, got)
		}
	}
}

// What is wrong is named, with its place; no prefix of a message panics.
func TestMalformedMessages(t *testing.T) {
	valid := func(i int) []byte { return messages()[i].Append(nil) }
	edit := func(b []byte, at int, v ...byte) []byte {
		copy(b[at:], v)
		return b
	}
	for name, c := range map[string]struct {
		pkt  []byte
		want string
	}{
		"empty":             {nil, "ends before its common header at offset 0"},
		"short":             {valid(4)[:15], "ends before its common header at offset 15"},
		"version":           {edit(valid(4), 0, 0x23), "version 2 at offset 0"},
		"type":              {edit(valid(4), 0, 0x16), "unknown message type 6 at offset 0"},
		"flavor":            {edit(valid(4), 12, 9), "unknown command flavor 9 at offset 12"},
		"fec_id":            {edit(valid(1), 13, 2), "unknown fec_id 2 at offset 13"},
		"header too short":  {edit(valid(1), 1, 4), "header length 16, want 20 to"},
		"header too long":   {edit(valid(4), 1, 5), "header length 20, want 16 to 16 at offset 1"},
		"source none":       {edit(valid(4), 4, 0, 0, 0, 0), "source_id 0x0 at offset 4"},
		"source any":        {edit(valid(4), 4, 255, 255, 255, 255), "source_id 0xffffffff at offset 4"},
		"zero hel":          {edit(valid(1), 21, 0), "header extension 64 of 0 words where 52 bytes are left at offset 21"},
		"hel beyond header": {edit(valid(1), 21, 14), "header extension 64 of 14 words where 52 bytes are left at offset 21"},
		"node list":         {append(valid(3), 1), "list of node ids of 9 bytes at offset 20"},
		"object list":       {append(valid(5), 1), "list of object ids of 5 bytes at offset 20"},
		"receiver list":     {append(valid(6), 1), "list of receivers of 9 bytes at offset 76"},
		"request cut":       {append(valid(10), 1, 2), "repair request of 2 bytes"},
		"request form":      {append(valid(10), 4, 1, 0, 0), "unknown form 4"},
		"request length":    {append(valid(10), 1, 1, 0, 9), "repair request of 9 bytes where 0 are left"},
		"request item":      {append(valid(10), 1, 1, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0), "repair item of 8 bytes with fec_id 2"},
		"half a range":      {append(valid(10), 2, 1, 0, 8, 5, 0, 0, 0, 0, 0, 0, 0), "range of repair without its end"},
		"watermark":         {valid(12)[:30], "watermark of 6 bytes at offset 24"},
	} {
		_, err := Parse(c.pkt)
		var pe *ParseError
		if !errors.As(err, &pe) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for _, m := range messages() {
		b := m.Append(nil)
		for n := range b {
			if again, err := Parse(b[:n]); err == nil && !bytes.Equal(again.Append(nil), b[:n]) {
				t.Errorf("%T cut at %d was taken for another message", m, n)
			}
		}
	}
}

func TestQuantization(t *testing.T) {
	for q := range 256 {
		if got := quantizeRTT(unquantizeRTT(uint8(q))); got != uint8(q) {
			t.Errorf("rtt %d -> %v -> %d", q, unquantizeRTT(uint8(q)), got)
		}
		if q < 16 && quantizeGroup(unquantizeGroup(uint8(q))) != uint8(q) {
			t.Errorf("group %d -> %d -> %d", q, unquantizeGroup(uint8(q)), quantizeGroup(unquantizeGroup(uint8(q))))
		}
	}
	if q := quantizeRTT(266 * time.Millisecond); q != 0x94 {
		t.Errorf("266 ms -> %#x", q)
	}
	if q := quantizeGroup(11); unquantizeGroup(q) != 50 {
		t.Errorf("11 receivers -> %d", unquantizeGroup(q))
	}
	if q := quantizeRate(2.5e6); q != 0x4006 {
		t.Errorf("2.5e6 B/s -> %#x", q)
	}
	for _, rate := range []float64{1, 999.9, 12.5e6, 9.9999e9, 1.25e9} {
		if got := unquantizeRate(quantizeRate(rate)); got < rate*0.995 || got > rate*1.005 {
			t.Errorf("rate %g -> %g", rate, got)
		}
	}
	if quantizeRTT(-time.Second) != 0 || quantizeRTT(time.Hour) != 255 || quantizeRate(0) != 0 || quantizeRate(1e18) != 0xffff || quantizeLoss(2) != 65535 {
		t.Error("values out of range are not clamped")
	}
}

func TestSerialOrder(t *testing.T) {
	if !ObjectID(65535).Before(0) || ObjectID(0).Before(65535) || ObjectID(5).Before(5) || ObjectID(2).Distance(65534) != 4 {
		t.Error("object ids are not ordered as serial numbers")
	}
	if !(Position{65535, 9, 9}).Before(Position{0, 0, 0}) || (Position{1, 2, 3}).Before(Position{1, 2, 3}) || !(Position{1, 2, 3}).Before(Position{1, 2, 4}) {
		t.Error("positions are out of order")
	}
	a := Timestamp{10, 900_000}
	if b := a.add(200 * time.Millisecond); b != (Timestamp{11, 100_000}) || b.sub(a) != 200*time.Millisecond || a.sub(b) != -200*time.Millisecond {
		t.Error("timestamps do not carry")
	}
}

// Whatever parses is encoded again into a message that parses the same.
func FuzzParse(f *testing.F) {
	for _, m := range messages() {
		f.Add(m.Append(nil))
	}
	for _, c := range readCapture(f, "nsmall") {
		f.Add(c.msg)
	}
	f.Fuzz(func(t *testing.T, pkt []byte) {
		m, err := Parse(pkt)
		if err != nil {
			return
		}
		once := m.Append(nil)
		again, err := Parse(once)
		if err != nil {
			t.Fatalf("%T encoded again: %v", m, err)
		}
		if twice := again.Append(nil); !bytes.Equal(once, twice) {
			t.Fatalf("%T:\nonce  %x\ntwice %x", m, once, twice)
		}
		switch m := m.(type) {
		case *Nack:
			for range m.Requests.All() {
			}
		case *RepairAdv:
			for range m.Requests.All() {
			}
		case *Data:
			m.Ext.FTI(m.FEC)
			m.Ext.CC()
			m.Ext.Rate()
		}
	})
}

package image

import (
	"bytes"
	"crypto/rand"
	"errors"
	"slices"
	"testing"

	"aead.dev/minisign"
)

// memory is a disk.
type memory []byte

func (m memory) ReadAt(p []byte, at int64) (int, error) { return bytes.NewReader(m).ReadAt(p, at) }
func (m memory) WriteAt(p []byte, at int64) (int, error) {
	return copy(m[at:], p), nil
}

func TestTable(t *testing.T) {
	small := memory(make([]byte, 8*MiB))
	want := Table{Disk: partID(0), Partitions: []Partition{
		{Number: 1, Name: "first", Type: mustGUID(typeESP), ID: partID(1), Start: 1 * MiB, Size: 2 * MiB},
		{Number: 5, Name: "last", Type: mustGUID(typeLinux), ID: partID(5), Start: 3 * MiB, Size: 4 * MiB},
	}}
	small[0] = 0xeb // boot code
	if err := want.Write(small, int64(len(small))); err != nil {
		t.Fatal(err)
	}
	got, err := ReadTable(small, int64(len(small)))
	if err != nil || got.Disk != want.Disk || !slices.Equal(got.Partitions, want.Partitions) {
		t.Fatalf("read %+v, %v", got, err)
	}
	if small[0] != 0xeb || small[510] != 0x55 || small[450] != 0xee {
		t.Error("the protective record is wrong, or took the boot code's place")
	}
	if got.Grow(int64(len(small))) {
		t.Error("a partition grew over the second table")
	}
	if !got.Grow(64*MiB) || got.Find(5).Size != 60*MiB {
		t.Errorf("grew to %d", got.Find(5).Size/MiB)
	}
	if got.Write(small, int64(len(small))) == nil {
		t.Error("a partition beyond the disk was written")
	}
	small[600]++
	if again, err := ReadTable(small, int64(len(small))); err != nil || !slices.Equal(again.Partitions, want.Partitions) {
		t.Errorf("the second table did not serve for the first: %+v, %v", again, err)
	}
	if _, err := ReadTable(small[:6*MiB], 6*MiB); !errors.Is(err, ErrNoTable) {
		t.Errorf("a flipped header and no second one: %v", err)
	}
	again := want
	again.Partitions = slices.Clone(want.Partitions)
	again.Rename()
	if again.Disk == want.Disk || again.Partitions[0].ID == want.Partitions[0].ID || again.Partitions[0].ID == again.Partitions[1].ID {
		t.Errorf("renamed to %+v", again)
	}
}

func TestPartitionsFollowOneAnother(t *testing.T) {
	parts := Partitions()
	slices.SortFunc(parts, func(a, b Partition) int { return int(a.Start - b.Start) })
	for i := 1; i < len(parts); i++ {
		if parts[i-1].Start+parts[i-1].Size != parts[i].Start {
			t.Errorf("%s does not begin where %s ends", parts[i].Name, parts[i-1].Name)
		}
	}
	if parts[len(parts)-1].Number != PartData {
		t.Error("what is to grow is not the last")
	}
}

func FuzzTable(f *testing.F) {
	disk := memory(make([]byte, 8*MiB))
	table := Table{Partitions: []Partition{{Number: 1, Name: "x", Type: mustGUID(typeESP), Start: MiB, Size: MiB}}}
	if err := table.Write(disk, int64(len(disk))); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(disk[:34*sector]))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := ReadTable(memory(data), int64(len(data)))
		if err != nil {
			return
		}
		for _, p := range table.Partitions {
			if p.Start < 0 || p.Size <= 0 {
				t.Fatalf("%+v", p)
			}
		}
	})
}

func TestGrubEnv(t *testing.T) {
	want := GrubEnv{"slot": "a", "trial": "b", "left": "3"}
	block, err := want.Encode()
	if err != nil || len(block) != GrubEnvSize {
		t.Fatal(len(block), err)
	}
	got, err := ParseGrubEnv(block)
	if err != nil || len(got) != 3 || got["left"] != "3" {
		t.Fatalf("%v, %v", got, err)
	}
	if _, err := (GrubEnv{"a": "x\ny=z"}).Encode(); err == nil {
		t.Error("a value of two lines went in")
	}
	if _, err := ParseGrubEnv(block[1:]); !errors.Is(err, ErrGrubEnv) {
		t.Error(err)
	}
}

func FuzzGrubEnv(f *testing.F) {
	block, _ := GrubEnv{"slot": "a"}.Encode()
	f.Add(block)
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := ParseGrubEnv(data)
		if err != nil {
			return
		}
		for key, value := range env {
			if !plain(key) || !plain(value) {
				t.Fatalf("%q=%q", key, value)
			}
		}
	})
}

func TestModules(t *testing.T) {
	m := Modules{
		Files:   map[string]string{"virtio_net": "n.ko", "failover": "f.ko", "net_failover": "nf.ko", "e1000": "e.ko", "loop_a": "a", "loop_b": "b"},
		Needs:   map[string][]string{"virtio_net": {"net_failover"}, "net_failover": {"failover"}, "loop_a": {"loop_b"}, "loop_b": {"loop_a"}},
		Aliases: []Alias{{"virtio:d00000001v*", "virtio_net"}, {"pci:v00008086d0000100[0-9A-F]sv*", "e1000"}},
	}
	for _, row := range []struct {
		alias string
		want  []string
	}{
		{"virtio:d00000001v00001AF4", []string{"failover", "net_failover", "virtio_net"}},
		{"pci:v00008086d0000100Esv0", []string{"e1000"}},
		{"pci:v00008086d0000100Gsv0", nil},
		{"net-failover", []string{"failover", "net_failover"}},
		{"unknown", nil},
	} {
		if got, err := m.Order(row.alias); err != nil || !slices.Equal(got, row.want) {
			t.Errorf("%s: %v, %v", row.alias, got, err)
		}
	}
	if _, err := m.Order("loop_a"); err == nil {
		t.Error("modules that need each other have an order")
	}
	if got := ModuleName("kernel/net/nf-tables.ko.xz"); got != "nf_tables" {
		t.Error(got)
	}
}

func TestUpdateHead(t *testing.T) {
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stranger, _, _ := minisign.GenerateKey(rand.Reader)
	m := Manifest{Format: 1, Product: Product, Arch: "amd64", Version: "1.2", Serial: 7, Data: 1, SlotBytes: 5, PayloadBytes: 4}
	var file bytes.Buffer
	if err := WriteUpdateHead(&file, m, private); err != nil {
		t.Fatal(err)
	}
	good := file.Bytes()
	got, err := ReadUpdateHead(bytes.NewReader(good), public)
	if err != nil || got != m {
		t.Fatalf("%+v, %v", got, err)
	}
	flipped := slices.Clone(good)
	flipped[30] ^= 1
	for _, row := range []struct {
		name string
		file []byte
		key  minisign.PublicKey
		want error
	}{
		{"another key", good, stranger, ErrSignature},
		{"a flipped manifest", flipped, public, ErrSignature},
		{"cut in the head", good[:10], public, ErrTruncated},
		{"cut in the manifest", good[:40], public, ErrTruncated},
		{"something else", []byte("PK\x03\x04 a zip archive, perhaps"), public, ErrNotUpdate},
		{"a huge manifest", []byte(updateMagic + "\xff\xff\xff\xff\xff\xff\xff\xff"), public, ErrNotUpdate},
	} {
		if _, err := ReadUpdateHead(bytes.NewReader(row.file), row.key); !errors.Is(err, row.want) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	for _, row := range []struct {
		running Release
		want    error
	}{
		{Release{Arch: "amd64", Serial: 6}, nil},
		{Release{Arch: "amd64", Serial: 7}, ErrOlder},
		{Release{Arch: "amd64", Serial: 8}, ErrOlder},
		{Release{Arch: "arm64", Serial: 6}, ErrUnfit},
	} {
		if err := m.Fits(row.running); !errors.Is(err, row.want) {
			t.Errorf("%+v: %v", row.running, err)
		}
	}
}

func FuzzUpdateHead(f *testing.F) {
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	var file bytes.Buffer
	if err := WriteUpdateHead(&file, Manifest{Format: 1, Product: Product, SlotBytes: 1, PayloadBytes: 1}, private); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := ReadUpdateHead(bytes.NewReader(data), public); err == nil && m.SlotBytes > SlotSize {
			t.Fatalf("%+v", m)
		}
	})
}

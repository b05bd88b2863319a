package fec

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
)

// symbols are what one capture of libnorm holds of each block, by symbol id.
type symbols map[uint32]map[int][]byte

// readSymbols reads the DATA of a capture (Ethernet, IPv4, UDP, fec_id 5 with
// EXT_FTI in each packet) and the object's transmission information.
func readSymbols(t *testing.T, path string) (blocks symbols, size int64, segment, k, r int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	blocks = symbols{}
	for rest := raw[24:]; len(rest) > 0; {
		n := 16 + int(binary.LittleEndian.Uint32(rest[8:]))
		frame := rest[16:n]
		rest = rest[n:]
		msg := frame[14+int(frame[14]&15)*4+8:]
		if msg[0] != 0x12 { // version 1, DATA
			continue
		}
		fti := msg[20:]
		size = int64(binary.BigEndian.Uint64(fti) & (1<<48 - 1))
		segment, k, r = int(binary.BigEndian.Uint16(fti[8:])), int(fti[10]), int(fti[11])
		id := binary.BigEndian.Uint32(msg[16:])
		if blocks[id>>8] == nil {
			blocks[id>>8] = map[int][]byte{}
		}
		blocks[id>>8][int(id&255)] = msg[int(msg[1])*4:]
	}
	return blocks, size, segment, k, r
}

// Each parity symbol that libnorm sent is the one computed here. Two captures
// hold the first 64 bytes of each symbol; columns are independent, so the
// comparison is as exact on these.
func TestParityIsThatOfLibnorm(t *testing.T) {
	total := 0
	for _, c := range []struct {
		name   string
		stride int
		parity int
	}{
		{"norm1", 64, 281}, {"n200", 64, 208}, {"nsmall", 1408, 4}, {"ntiny", 960, 4},
	} {
		blocks, size, segment, k, r := readSymbols(t, "../norm/testdata/"+c.name+".pcap")
		code, err := New(k, r)
		if err != nil {
			t.Fatal(err)
		}
		part, err := Partition(size, segment, k)
		if err != nil {
			t.Fatal(err)
		}
		same := 0
		for number, block := range blocks {
			n := part.Len(int64(number))
			source := Buffers(n, c.stride)
			for i := range source {
				if block[i] == nil {
					t.Fatalf("%s: block %d lacks source symbol %d", c.name, number, i)
				}
				copy(source[i], block[i])
			}
			parity := encodeAll(t, code, source)
			for id, want := range block {
				if id < n {
					continue
				}
				if !bytes.Equal(parity[id-n][:len(want)], want) {
					t.Errorf("%s: block %d parity row %d differs", c.name, number, id-n)
					continue
				}
				same++
			}
		}
		if same != c.parity {
			t.Errorf("%s: %d parity symbols identical, want %d", c.name, same, c.parity)
		}
		total += same
	}
	t.Logf("%d of 497 parity symbols of libnorm are identical", total)
}

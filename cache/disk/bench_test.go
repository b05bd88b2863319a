package disk

import (
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

func BenchmarkAppend(b *testing.B) {
	s := openVolume(b, b.TempDir()).Segments()
	card, body := noise(1, 200), noise(2, 1024)
	b.SetBytes(int64(len(body)))
	for num := range uint64(b.N) {
		if _, err := s.Append(num, card, body); err != nil {
			b.Fatal(err)
		}
		if num%(256<<10) == 256<<10-1 { // keeps the disk of the machine from filling up
			b.StopTimer()
			for _, i := range s.List() {
				must(b, s.Remove(i.ID))
			}
			must(b, s.Flush())
			b.StartTimer()
		}
	}
}

func BenchmarkRead(b *testing.B) {
	s := openVolume(b, b.TempDir()).Segments()
	card, body := noise(1, 200), noise(2, 1024)
	places := make([]Place, 20000) // three segments
	for i := range places {
		var err error
		places[i], err = s.Append(uint64(i), card, body)
		must(b, err)
	}
	must(b, s.Flush())
	b.SetBytes(int64(len(body)))
	dst := make([]byte, recordMax)
	for i := 0; b.Loop(); i++ {
		n := i * 7919 % len(places)
		if _, _, err := s.Read(places[n], uint64(n), dst); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHashBlock(b *testing.B) {
	x := putBlob(b, openVolume(b, b.TempDir()), 1, noise(1, mib), nil)
	b.SetBytes(mib)
	for b.Loop() {
		if _, err := x.HashBlock(content.Block(0, mib)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	x := putBlob(b, openVolume(b, b.TempDir()), 1, noise(1, mib), nil)
	b.SetBytes(mib)
	for b.Loop() {
		must(b, x.Check(0, mib))
	}
}

func BenchmarkProbe(b *testing.B) {
	v := openVolume(b, b.TempDir())
	for b.Loop() {
		must(b, v.Probe())
	}
}

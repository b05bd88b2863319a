package cache

import (
	"fmt"
	"io"
	"testing"

	"github.com/cistern-edge/cistern/cache/content"
)

// BenchmarkFill brings 256 MiB from memory while one reader takes it.
func BenchmarkFill(b *testing.B) {
	data := noise(90, 256*mib)
	layer, id := proof(b, data)
	for name, object := range map[string]content.Object{
		"plain":  {Size: id.Size},
		"proved": {ID: id, Size: id.Size, Layer: layer},
	} {
		b.Run(name, func(b *testing.B) {
			s := open(b, Config{})
			b.SetBytes(id.Size)
			for i := range b.N {
				f := create(b, s, fmt.Sprint(i), object)
				r, err := f.Reader()
				if err != nil {
					b.Fatal(err)
				}
				f.Start(from("memory", data, mib))
				if n, err := r.WriteRange(b.Context(), io.Discard, content.Range{End: id.Size}); n != id.Size || err != nil {
					b.Fatal(n, err)
				}
				<-f.Done()
				r.Close()
				if err := s.Evict(f.Num()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRead reads a complete object of 64 MiB.
func BenchmarkRead(b *testing.B) {
	s := open(b, Config{})
	data := noise(91, 64*mib)
	num := put(b, s, "a", data)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		r, err := s.Read(num)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.WriteRange(b.Context(), io.Discard, content.Range{End: int64(len(data))}); err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}

package qualify

// patterns writes a pattern to every word and reads it back: all ones, all zeros,
// alternating bits, and each word's own number, which shows addresses that are the
// same. It gives how many words came back different.
func patterns(words []uint64, pass uint64) (wrong int) {
	const alternating = 0xaaaaaaaaaaaaaaaa
	for _, p := range []struct{ fixed, numbered uint64 }{{^uint64(0), 0}, {0, 0}, {alternating, 0}, {^uint64(alternating), 0}, {pass << 48, 1}} {
		for i := range words {
			words[i] = p.fixed ^ uint64(i)*p.numbered
		}
		for i, got := range words {
			if got != p.fixed^uint64(i)*p.numbered {
				wrong++
			}
		}
	}
	return wrong
}

package norm

// parityRow is a parity symbol held until its block can be decoded.
type parityRow struct {
	row  int
	data []byte
}

// hold keeps a parity symbol.
func (b *rxBlock) hold(s *source, row parityRow) {
	if len(b.parity) == 0 {
		s.holders = append(s.holders, b)
	}
	b.parity = append(b.parity, row)
	s.parityBytes += len(row.data)
}

// dropParity forgets the parity held, as if it had been lost.
func (b *rxBlock) dropParity(s *source) {
	for _, p := range b.parity {
		b.have.remove(b.n + p.row)
		s.parityBytes -= len(p.data)
	}
	b.parity = nil
}

// makeRoom finds room for a parity symbol of block b. When there is none, the
// block that began to hold parity last gives way, so that the first ones are
// sure to get done. It reports false if that is b itself.
func (s *source) makeRoom(b *rxBlock, size int) bool {
	for s.r.parityBytes()+size > s.r.cfg.MaxParityBytes || len(s.holders) > s.blocks+64 {
		last := len(s.holders) - 1
		if last < 0 {
			return false
		}
		if len(s.holders) > s.blocks+64 {
			s.compactHolders()
			continue
		}
		if s.holders[last] == b && len(b.parity) > 0 {
			return false
		}
		s.holders[last].dropParity(s)
		s.holders = s.holders[:last]
	}
	return true
}

// parityBytes is the parity held of all senders.
func (r *Receiver) parityBytes() (n int) {
	for _, s := range r.sources {
		n += s.parityBytes
	}
	return n
}

// compactHolders forgets the blocks that hold nothing any more.
func (s *source) compactHolders() {
	rest := s.holders[:0]
	seen := map[*rxBlock]bool{}
	for _, b := range s.holders {
		if len(b.parity) > 0 && !seen[b] {
			rest, seen[b] = append(rest, b), true
		}
	}
	clear(s.holders[len(rest):])
	s.holders = rest
}

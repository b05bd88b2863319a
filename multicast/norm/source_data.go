package norm

import "time"

// handleData takes a symbol.
func (s *source) handleData(now time.Time, m *Data, trusted bool) {
	if !s.synced {
		// A repair may be about an object that is not sent any more.
		if m.Flags&FlagRepair != 0 {
			return
		}
		if !trusted {
			s.keepEarly(m) // the INFO that vouches for it may be on its way
			return
		}
		s.sync(m.Object)
	}
	if m.Flags&FlagRepair == 0 {
		s.join(m.Position)
	}
	o := s.object(m.Object, trusted)
	if o == nil {
		if m.Object.Before(s.low) && !m.Object.Before(s.first) {
			s.move(now, m.Position)
			s.r.stats.Duplicates++
		} else if !m.Object.Before(s.low) {
			s.keepEarly(m)
		}
		return
	}
	if !o.announce(m.FEC, m.Flags, m.Ext, trusted) {
		s.r.stats.Rejected++
		return
	}
	switch o.state {
	case objectHeard:
		s.keepEarly(m)
	case objectOpen:
		if !o.take(m) {
			s.r.stats.Rejected++
			return
		}
	}
	s.move(now, m.Position)
}

// handleInfo takes NORM_INFO.
func (s *source) handleInfo(now time.Time, m *Info) {
	if !s.synced {
		if m.Flags&FlagRepair != 0 {
			return
		}
		s.sync(m.Object)
	}
	o := s.object(m.Object, true)
	if o == nil {
		return
	}
	if !o.announce(m.FEC, m.Flags|FlagInfo, m.Ext, true) {
		s.r.stats.Rejected++
		return
	}
	o.takeInfo(m.Payload)
	// A repeat of INFO says nothing of where the sender is, a new object's does.
	if !s.moved || s.position.Object.Before(m.Object) {
		s.move(now, Position{Object: m.Object})
	}
}

package modeswitch

import "time"

// sequencer puts frames that come by two paths into the order of their stamps,
// which the NIC's program gives: consecutive numbers for all of an instance's
// frames, whatever path they take. It is pure: time is told.
//
// Each path delivers in order. A frame that is missing is therefore lost, or of
// an order of its own (another queue of the NIC), once both paths have
// delivered later ones. That is waited for as long as a path that may bring it
// brings others, and for hold beyond; patience times hold at most.
type sequencer struct {
	hold  time.Duration
	next  uint32 // all before it are delivered or given up
	begun bool
	// open: the old path has delivered all that was sent before the first stamp.
	// Until then, what the new one brings would overtake it.
	open bool
	// slots hold the frames from next on that have come, modulo their number;
	// missing has a bit for each of as many before next that was given up.
	slots   [window]slot
	missing [window / 64]uint64
	held    int
	lanes   [2]lane
	figures Merged
}

// window is how many frames may be held, as many as a queue holds; a power of two.
const window = 8192

// patience is how many times hold a frame may be held at most.
const patience = 3

// slot is a frame that is held.
type slot struct {
	here  bool
	lane  uint8
	since time.Duration
	buf   []byte
}

// lane is a path.
type lane struct {
	next  uint32        // one more than the last stamp it brought
	last  time.Duration // when that was
	begun bool
	ended bool // it brings none any more
}

// Merged says how frames of an exchange came together.
type Merged struct {
	// Stamped counts the frames that had a stamp, InFlight those of them that
	// came by the old path after the first one had come by the new.
	Stamped  uint64 `json:"stamped"`
	InFlight uint64 `json:"in_flight"`
	// Lost counts stamps that never came, Duplicates frames that came twice and
	// were delivered once, Reordered those that were delivered after later ones.
	Lost       uint64 `json:"lost"`
	Duplicates uint64 `json:"duplicates"`
	Reordered  uint64 `json:"reordered"`
	// Held counts frames that waited for others, Longest is the longest wait.
	Held    uint64        `json:"held"`
	Longest time.Duration `json:"longest_ns"`
}

// add takes a frame that came by a lane at a time. deliver is called for each
// frame whose turn it is, in order, before add returns. It returns false if the
// frame is a duplicate.
func (s *sequencer) add(by uint8, stamp uint32, frame []byte, now time.Duration, deliver func(lane uint8, frame []byte)) bool {
	s.begin()
	s.note(by, stamp, now)
	s.open = s.open || by == oldLane
	ahead := int32(stamp - s.next)
	if ahead < 0 {
		return s.late(stamp, func() { deliver(by, frame) })
	}
	for ahead >= window {
		s.open = true
		s.step(now, deliver)
		ahead = int32(stamp - s.next)
	}
	at := &s.slots[stamp%window]
	switch {
	case at.here:
		s.figures.Duplicates++
		return false
	case ahead == 0 && s.open:
		deliver(by, frame)
		s.pass(false)
	default:
		*at = slot{true, by, now, append(at.buf[:0], frame...)}
		s.figures.Held++
		s.held++
	}
	s.advance(now, deliver)
	return true
}

// begin sets where an exchange begins.
func (s *sequencer) begin() {
	if !s.begun {
		s.begun, s.next = true, firstStamp
	}
}

// extend returns the number of which a stamp has the lower 24 bits: of all, the
// one nearest to what is next.
func (s *sequencer) extend(stamp uint32) uint32 {
	s.begin()
	const up = 32 - stampBits
	return s.next + uint32(int32((stamp-s.next)<<up)>>up)
}

// firstStamp is that of the first frame of an exchange.
const firstStamp = 1

// note counts a stamp.
func (s *sequencer) note(by uint8, stamp uint32, now time.Duration) {
	s.figures.Stamped++
	l := &s.lanes[by]
	l.last = now
	if !l.begun || int32(stamp-l.next) >= 0 {
		l.begun, l.next = true, stamp+1
	}
	if by == oldLane && s.lanes[newLane].begun {
		s.figures.InFlight++
	}
}

// Lanes.
const (
	oldLane uint8 = iota
	newLane
)

// late takes a frame whose turn is over.
func (s *sequencer) late(stamp uint32, deliver func()) bool {
	word, bit := &s.missing[stamp%window/64], uint64(1)<<(stamp%64)
	if s.next-stamp <= window && *word&bit == 0 {
		s.figures.Duplicates++
		return false
	}
	if s.next-stamp <= window {
		s.figures.Lost--
	}
	*word &^= bit
	s.figures.Reordered++
	deliver()
	return true
}

// pass goes on to the next stamp; the present one has been delivered, or is
// missing.
func (s *sequencer) pass(missing bool) {
	word, bit := &s.missing[s.next%window/64], uint64(1)<<(s.next%64)
	*word &^= bit
	if missing {
		*word |= bit
		s.figures.Lost++
	}
	s.next++
}

// step goes on to the next stamp, whether its frame is here or not.
func (s *sequencer) step(now time.Duration, deliver func(uint8, []byte)) {
	at := &s.slots[s.next%window]
	if !at.here {
		s.pass(true)
		return
	}
	at.here = false
	s.held--
	s.figures.Longest = max(s.figures.Longest, now-at.since)
	deliver(at.lane, at.buf)
	s.pass(false)
}

// advance delivers what is next as long as it is here, or known to be missing.
func (s *sequencer) advance(now time.Duration, deliver func(uint8, []byte)) {
	for s.open && s.held > 0 && (s.slots[s.next%window].here || s.known()) {
		s.step(now, deliver)
	}
}

// known tells whether it is known that the next frame will not come: every path
// that goes on has delivered later ones.
func (s *sequencer) known() bool {
	for i := range s.lanes {
		if s.lanes[i].mayBring(s.next) {
			return false
		}
	}
	return true
}

// mayBring tells whether a stamp may still come by the lane.
func (l *lane) mayBring(stamp uint32) bool {
	return !l.ended && (!l.begun || int32(l.next-stamp) <= 0)
}

// limit returns until when a frame that has been held since then waits for the
// next one.
func (s *sequencer) limit(since time.Duration) time.Duration {
	from := since
	for i := range s.lanes {
		if l := &s.lanes[i]; l.begun && l.mayBring(s.next) {
			from = max(from, l.last)
		}
	}
	return min(from+s.hold, since+patience*s.hold)
}

// start notes that all that comes by the old lane is stamped.
func (s *sequencer) start(now time.Duration, deliver func(uint8, []byte)) {
	s.begin()
	s.open = true
	s.advance(now, deliver)
}

// end notes that no more stamped frames come by a lane.
func (s *sequencer) end(by uint8, now time.Duration, deliver func(uint8, []byte)) {
	s.begin()
	s.lanes[by].ended = true
	s.open = s.open || by == oldLane
	s.advance(now, deliver)
}

// expire gives up the frames that others have waited for long enough. It
// returns when to call it again, 0 for not at all.
func (s *sequencer) expire(now time.Duration, deliver func(uint8, []byte)) time.Duration {
	for s.held > 0 {
		stamp, since := s.eldest()
		if limit := s.limit(since); now < limit {
			return limit
		}
		s.open = true
		for int32(stamp-s.next) >= 0 {
			s.step(now, deliver)
		}
		s.advance(now, deliver)
	}
	return 0
}

// eldest finds the frame that has been held longest.
func (s *sequencer) eldest() (stamp uint32, since time.Duration) {
	found := false
	for i := range uint32(window) {
		if at := &s.slots[(s.next+i)%window]; at.here && (!found || at.since < since) {
			stamp, since, found = s.next+i, at.since, true
		}
	}
	return stamp, since
}

// flush delivers all that is held.
func (s *sequencer) flush(now time.Duration, deliver func(uint8, []byte)) {
	for s.held > 0 {
		s.step(now, deliver)
	}
}

package runq

import cs "junction/coresched"

// Slices finds the cores whose tasks have had them for a time slice. It looks
// at all cores only when one may have expired.
type Slices struct {
	// Length of a slice; 0: there are none.
	Length cs.Time
	next   cs.Time // nothing expires before
	armed  bool
}

// Began says that a slice began at the given time.
func (s *Slices) Began(at cs.Time) {
	if end := at + s.Length; !s.armed || end < s.next {
		s.next, s.armed = end, true
	}
}

// Expire calls f for each core whose slice has ended, and asks b for a call
// when the next one will. To be called while there are tasks that wait.
func (s *Slices) Expire(v *cs.View, now cs.Time, b *cs.Batch, f func(cs.CPU)) {
	if s.Length <= 0 {
		return
	}
	if s.armed && now >= s.next {
		s.armed = false
		cpus := v.CPUs()
		for c := cpus.Next(0); c != cs.NoCPU; c = cpus.Next(c + 1) {
			if v.Running(c) == cs.NoTask || b.Names(c) {
				continue
			}
			if v.Since(c)+s.Length <= now {
				f(c)
				s.Began(now) // it may still be the same task
				continue
			}
			s.Began(v.Since(c))
		}
	}
	if s.armed {
		b.Again(s.next)
	}
}

package cores

import "slices"

// wish is what is wanted, by what looks have found. A look is due when a time is
// over since the last one that was; others come between them.
//
// One who wants to execute after a long rest is taken for one who soon rests again,
// so for gone when a single look that is due finds nothing; one who was there again
// at once after that is remembered for longer, not to give its core up for each
// moment.
type wish struct {
	recent   [memory]int // found by the last looks
	at       int
	turns    uint64
	fresh    bool // no look was due yet
	quiet    int  // looks that were due and found nothing, in a row
	patience int  // how many of them make the end
}

// begin is for the first who wants to execute; soon: after a short rest only.
func (w *wish) begin(soon bool) {
	*w = wish{turns: w.turns, fresh: true, patience: 1}
	if soon {
		w.patience = memory
	}
}

// heed takes note of what a look has found of at most kthreads. It returns how many
// are wanted, 0 if that has not changed, and whether it is over.
func (w *wish) heed(d *Demand, most int, due bool) (want int, over bool) {
	now := min(d.Executing+d.Waiting, most)
	if now == 0 && d.Turns != w.turns && !w.fresh {
		now = 1 // one has executed meanwhile; before, it was the one who began
	}
	w.turns = d.Turns
	w.at = (w.at + 1) % memory
	w.recent[w.at] = now
	switch {
	case now > 0:
		w.quiet = 0
	case due:
		w.quiet++
	}
	w.fresh = w.fresh && !due
	if w.quiet >= w.patience {
		return 0, true
	}
	return slices.Max(w.recent[:]), false
}

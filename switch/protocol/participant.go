package protocol

// Participant is an instance's side. The zero value is of one in server mode.
type Participant struct {
	mode  Mode // the way that packets leave, or are about to
	to    Mode
	epoch uint64
	phase phase
	// What a phase waits for.
	adding         bool // DoAdd has not ended
	moved, drained bool // moving, goingBack
	busy           bool // DoMove has not ended
	stuck          bool // going back, what the path left has is not waited for: once was in vain, or it is gone
	has            bool // the queue is in use
	out            []Action
}

type phase uint8

const (
	steady phase = iota
	preparing
	ready // Prepared has been said, and whatever follows until Move
	moving
	done // Moved has been said
	goingBack
)

// Mode returns the mode: the way that packets leave, or are about to.
func (p *Participant) Mode() Mode { return p.mode }

// Epoch returns the number of the last switch.
func (p *Participant) Epoch() uint64 { return p.epoch }

// Switching tells whether a switch is under way.
func (p *Participant) Switching() bool { return p.phase != steady }

func (p *Participant) do(a Action) {
	a.Epoch = p.epoch
	p.out = append(p.out, a)
}

func (p *Participant) send(k Kind, reason string) {
	p.do(Action{Do: DoSend, Message: Message{Kind: k, Epoch: p.epoch, Reason: reason}})
}

func (p *Participant) take() []Action {
	out := p.out
	p.out = nil
	return out
}

// Receive takes a message of the monitor.
func (p *Participant) Receive(m Message) []Action {
	if m.Epoch < p.epoch {
		return nil // of a switch that is over
	}
	switch {
	case m.Kind == Prepare && p.phase == steady && m.Epoch > p.epoch && m.To == p.mode.other():
		p.epoch, p.to, p.phase = m.Epoch, m.To, preparing
		p.adding, p.moved, p.drained = true, false, false
		p.do(Action{Do: DoAdd, Mode: p.to})
	case m.Kind == Prepare && p.phase == steady && m.Epoch > p.epoch:
		p.epoch = m.Epoch
		p.send(Refused, "the instance is in that mode")
	case m.Kind == Align && p.phase == ready && m.Epoch == p.epoch:
		p.do(Action{Do: DoAwait, Mark: MarkStamped, Mode: p.mode})
	case m.Kind == Move && p.phase == ready && m.Epoch == p.epoch:
		p.phase = moving
		p.do(Action{Do: DoAwait, Mark: MarkDrained, Mode: p.mode})
		p.move(p.to, false)
	case m.Kind == Finish && p.phase == done && m.Epoch == p.epoch:
		p.do(Action{Do: DoEndMerge})
		p.settle()
		p.send(Finished, "")
	case m.Kind == Abort:
		p.abort(m)
	}
	return p.take()
}

func (p *Participant) move(to Mode, force bool) {
	p.mode, p.busy = to, true
	p.do(Action{Do: DoMove, Mode: to, Force: force})
}

// settle ends a switch: what the mode does not need is given up.
func (p *Participant) settle() {
	p.phase, p.to = steady, p.mode
	if p.mode == Server && p.has {
		p.has = false
		p.do(Action{Do: DoRemove})
	}
}

// PathAdded follows DoAdd.
func (p *Participant) PathAdded() []Action {
	p.adding = false
	p.has = true // or has long had the ring, which settle leaves alone
	switch p.phase {
	case preparing:
		p.do(Action{Do: DoMerge, Mode: p.to})
		p.do(Action{Do: DoAwait, Mark: MarkProbe, Mode: p.to})
	case goingBack:
		p.back()
	}
	return p.take()
}

// PathRefused follows DoAdd.
func (p *Participant) PathRefused(reason string) []Action {
	p.adding = false
	switch p.phase {
	case preparing:
		p.phase, p.to = steady, p.mode
		p.send(Refused, reason)
	case goingBack:
		p.back()
	}
	return p.take()
}

// MarkSeen follows DoAwait.
func (p *Participant) MarkSeen(epoch uint64, m Mark) []Action {
	if epoch != p.epoch {
		return nil
	}
	switch {
	case m == MarkProbe && p.phase == preparing && !p.adding:
		p.phase = ready
		p.send(Prepared, "")
	case m == MarkStamped && p.phase == ready:
		p.do(Action{Do: DoStamped, Mode: p.mode})
		p.send(Aligned, "")
	case m == MarkDrained && p.phase == moving:
		p.drained = true
		p.do(Action{Do: DoDrained, Mode: p.mode.other()})
		p.arrived()
	case m == MarkBack && p.phase == goingBack:
		p.drained = true
		p.back()
	}
	return p.take()
}

// EgressMoved follows DoMove.
func (p *Participant) EgressMoved() []Action {
	p.busy, p.moved = false, true
	switch p.phase {
	case moving:
		p.arrived()
	case goingBack:
		p.back()
	}
	return p.take()
}

// EgressStuck follows DoMove: packets leave by the path before.
func (p *Participant) EgressStuck(reason string) []Action {
	p.busy = false
	p.mode = p.mode.other()
	switch p.phase {
	case moving:
		p.phase = done // Abort follows
		p.send(Refused, reason)
	case goingBack:
		p.stuck = true
		p.back()
	}
	return p.take()
}

func (p *Participant) arrived() {
	if p.moved && p.drained {
		p.phase = done
		p.send(Moved, "")
	}
}

// abort goes to the mode that the monitor says.
func (p *Participant) abort(m Message) {
	p.epoch = m.Epoch
	if p.phase == steady && p.mode == m.To {
		p.settle()
		p.send(Aborted, "")
		return
	}
	p.phase, p.to, p.drained, p.stuck = goingBack, m.To, m.Gone, m.Gone
	if !m.Gone {
		p.do(Action{Do: DoAwait, Mark: MarkBack, Mode: m.To.other()})
	}
	p.back()
}

// back goes on with going back.
func (p *Participant) back() {
	switch {
	case p.busy || p.adding:
	case p.mode != p.to:
		p.move(p.to, p.stuck) // better out of order than not at all
	case p.drained:
		p.do(Action{Do: DoEndMerge})
		p.settle()
		p.send(Aborted, "")
	}
}

// GiveUp says that the mark that going back waits for does not come, as when
// the path is not there: the instance goes back without it.
func (p *Participant) GiveUp() []Action {
	if p.phase == goingBack {
		p.drained = true
		p.back()
	}
	return p.take()
}

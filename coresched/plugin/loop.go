package plugin

import (
	"errors"
	"fmt"
	"time"

	cs "junction/coresched"
	"junction/ipc"
)

// Loop is the policy's end: an agent between two rings.
type Loop struct {
	agent  *cs.Agent
	traits cs.Traits
	end    *ipc.End
	words  cs.Words
	clock  func() cs.Time
	spin   cs.Time

	frames   [][]byte
	next     pending      // being read
	pending  []pending    // came while a batch was in flight
	snapshot []cs.Message // parts of one that is not complete
	started  bool
	batch    cs.Batch
	id       uint32
	flying   bool
	news     bool // since the last decision
	turn     int  // whose agent decides next, where each core has one
	cpus     []cs.CPU
	due      cs.Time // when the policy wants to be called
	dueSet   bool
	frame    []byte
	parts    [1][]byte
	timer    *time.Timer
}

// pending is a message, or the beginning of a snapshot, that waits for results.
type pending struct {
	message cs.Message
	kind    kind
	start   *starting
}

type starting struct {
	cpus cs.CPUSet
	seqs []cs.Seq
}

// NewLoop returns the policy's end of a ring pair: end is the instance's side.
// clock is the actuator's. For the time spin after it had something to do the
// loop looks for more before it sleeps; slices are as exact as it looks, else as
// Go's timers are.
func NewLoop(p cs.Policy, end *ipc.End, words cs.Words, clock func() cs.Time, spin cs.Time) *Loop {
	l := &Loop{
		agent: cs.NewAgent(p), traits: p.Traits(), end: end, words: words, clock: clock, spin: spin,
		frames: make([][]byte, 64), frame: make([]byte, headerSize+cs.MaxCPUs*txnSize),
	}
	l.timer = time.AfterFunc(time.Hour, end.Wake)
	l.timer.Stop()
	return l
}

// Run serves until the other side goes, which is an error of package ipc.
func (l *Loop) Run() error {
	defer l.timer.Stop()
	last := l.clock()
	for {
		worked, err := l.turnOnce()
		if err != nil {
			return err
		}
		now := l.clock()
		if worked {
			last = now
			continue
		}
		if now-last < l.spin {
			continue
		}
		if err := l.sleep(now); err != nil {
			return err
		}
		last = l.clock()
	}
}

// turnOnce reads what there is and decides once.
func (l *Loop) turnOnce() (worked bool, err error) {
	n, err := l.end.Receive(l.frames)
	if err != nil {
		return false, err
	}
	for _, f := range l.frames[:n] {
		if err := l.take(f); err != nil {
			return false, err
		}
	}
	l.end.Release()
	if !l.started || l.flying {
		return n > 0, nil
	}
	now := l.clock()
	if !l.news && !(l.dueSet && now >= l.due) {
		return n > 0, nil
	}
	return true, l.decide(now)
}

// take heeds one frame, or keeps it until the results of the batch in flight.
func (l *Loop) take(frame []byte) error {
	h, body, err := parse(frame)
	if err != nil {
		return err
	}
	switch h.kind {
	case kindMessages, kindSnapshot:
		for ; len(body) > 0; body = body[messageSize:] {
			l.next = pending{kind: h.kind}
			getMessage(body, &l.next.message)
			l.heed(&l.next)
		}
	case kindStart:
		s := &starting{cpus: getSet(body)}
		for c := range h.count {
			s.seqs = append(s.seqs, cs.Seq(order.Uint32(body[setSize+4*c:])))
		}
		l.heed(&pending{kind: kindStart, start: s})
	case kindResults:
		return l.settle(&h, body)
	case kindPing:
	default:
		return fmt.Errorf("%w: kind %d from an actuator", ErrFrame, h.kind)
	}
	return nil
}

func (l *Loop) heed(p *pending) {
	if l.flying {
		l.pending = append(l.pending, *p)
		return
	}
	switch p.kind {
	case kindSnapshot:
		l.snapshot = append(l.snapshot, p.message)
	case kindStart:
		l.start(p.start)
	case kindMessages:
		if l.started {
			l.agent.Deliver(&p.message)
			l.news = true
		}
	}
}

func (l *Loop) start(s *starting) {
	l.agent.Start(l.words, s.cpus, l.snapshot)
	l.cpus = l.cpus[:0]
	for c := s.cpus.Next(0); c != cs.NoCPU; c = s.cpus.Next(c + 1) {
		l.cpus = append(l.cpus, c)
	}
	if l.traits.PerCPU {
		for i, c := range l.cpus[:min(len(l.cpus), len(s.seqs))] {
			l.agent.Synced(c, s.seqs[i])
		}
	} else {
		l.cpus = append(l.cpus[:0], cs.NoCPU)
	}
	l.snapshot = l.snapshot[:0]
	l.started, l.news = true, true
}

// settle heeds the results of the batch in flight, then what came before them.
func (l *Loop) settle(h *header, body []byte) error {
	txns := l.batch.Txns()
	if !l.flying || h.id != l.id || len(body) != len(txns) {
		return fmt.Errorf("%w: %d results of batch %d", ErrFrame, len(body), h.id)
	}
	for i := range txns {
		txns[i].Result = cs.Result(body[i])
	}
	l.agent.Settle(l.clock(), &l.batch)
	l.flying, l.news = false, true
	waiting := l.pending
	l.pending = nil
	for i := range waiting {
		l.heed(&waiting[i])
	}
	if l.pending == nil {
		l.pending = waiting[:0]
	}
	return nil
}

// decide has agents decide, each in its turn, until one has something done.
func (l *Loop) decide(now cs.Time) error {
	l.dueSet = false
	for range l.cpus {
		l.turn = (l.turn + 1) % len(l.cpus)
		c := l.cpus[l.turn]
		l.agent.Decide(c, now, &l.batch)
		if len(l.batch.Txns()) > 0 {
			return l.send(c)
		}
		if at, set := l.batch.Timer(); set && (!l.dueSet || at < l.due) {
			l.due, l.dueSet = at, true
		}
	}
	l.news = false
	return nil
}

func (l *Loop) send(agent cs.CPU) error {
	txns := l.batch.Txns()
	l.id++
	h := header{kind: kindBatch, group: l.traits.Group, count: len(txns), id: l.id, agent: agent}
	h.put(l.frame)
	for i := range txns {
		putTxn(l.frame[headerSize+i*txnSize:], &txns[i])
	}
	l.parts[0] = l.frame[:headerSize+len(txns)*txnSize]
	if err := l.end.Transmit(nil, l.parts[:]); err != nil {
		return err // one batch in flight always fits
	}
	l.flying = true
	return l.end.Flush()
}

// sleep waits for the actuator, or until the policy wants to be called.
func (l *Loop) sleep(now cs.Time) error {
	if l.dueSet && !l.flying {
		l.timer.Reset(max(l.due-now, 1))
	}
	err := l.end.Wait()
	l.timer.Stop()
	return err
}

// Ended tells whether err, of Run or Driver.Step, only says that the other side
// has gone.
func Ended(err error) bool { return errors.Is(err, ipc.ErrGone) }

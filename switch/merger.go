package modeswitch

import (
	"errors"
	"sync"
	"time"

	"junction/direct"
)

// merger receives by two paths while a mode is exchanged: it delivers stamped
// frames in the order of their stamps, others at once.
type merger struct {
	e    *Endpoint
	from *Path // the old lane; any other path is the new one
	zero time.Time

	mu sync.Mutex
	// +checklocks:mu
	sink *sink
	// +checklocks:mu
	seq sequencer
	// +checklocks:mu
	count counters
	// +checklocks:mu
	timer *time.Timer
	// +checklocks:mu
	armed bool
	// +checklocks:mu
	over bool
	tag  uint8
	// give is deliver, bound once.
	give func(uint8, []byte)
	by   [2]*Path
}

// A stamp (direct.Stamp): the upper 8 bits are the exchange's tag, the lower 24
// count its frames from 1 and wrap.
const stampBits = 24

// ErrMerging: frames are being merged already.
var ErrMerging = errors.New("an exchange is under way")

// Merge makes frames that come by old and by another path be delivered in the
// order of their stamps. A frame is waited for while its path brings others and
// for hold beyond, no longer than patience times hold. Call it before frames are
// stamped with tag; frames with another tag are left from an exchange before, and
// delivered at once. Errors: ErrNotAttached, ErrMerging.
func (e *Endpoint) Merge(old, next *Path, tag uint8, hold time.Duration) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stack == nil || e.dispatcher == nil {
		return ErrNotAttached
	}
	if e.merger.Load() != nil {
		return ErrMerging
	}
	k, err := newSink(e.stack, e.nic, e.dispatcher, !old.backend.RXJoined || !next.backend.RXJoined)
	if err != nil {
		return err
	}
	m := &merger{e: e, from: old, tag: tag, zero: time.Now(), sink: k, by: [2]*Path{old, next}}
	m.seq.hold = hold
	m.give = m.deliver
	m.timer = time.AfterFunc(time.Hour, m.expire)
	m.timer.Stop()
	e.merger.Store(m)
	return nil
}

// Stamped tells the merger that all that comes by the old path is stamped from
// now on: what the new path brings need not wait for more than stamps say. Until
// then it would overtake frames that were sent before the first stamp.
func (e *Endpoint) Stamped() {
	if m := e.merger.Load(); m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.over {
			m.seq.start(m.now(), m.give)
			m.settle()
		}
	}
}

// Drained tells the merger that no more stamped frames come by a path.
func (e *Endpoint) Drained(p *Path) {
	if m := e.merger.Load(); m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.over {
			return
		}
		m.seq.end(m.lane(p), m.now(), m.give)
		m.settle()
	}
}

// EndMerge delivers what is held and ends what Merge began. Frames are as they
// come from then on.
func (e *Endpoint) EndMerge() Merged {
	m := e.merger.Load()
	if m == nil {
		return Merged{}
	}
	e.sums.Lock()
	defer e.sums.Unlock()
	figures, count := m.finish()
	e.gone.rx.add(&count)
	e.merger.CompareAndSwap(m, nil)
	return figures
}

// finish ends the merging and returns the counters, once.
func (m *merger) finish() (figures Merged, count counters) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	m.timer.Stop()
	m.seq.flush(m.now(), m.give)
	m.sink.flush()
	count, m.count = m.count, counters{}
	return m.seq.figures, count
}

func (m *merger) now() time.Duration { return time.Since(m.zero) }

func (m *merger) lane(p *Path) uint8 {
	if p == m.from {
		return oldLane
	}
	return newLane
}

// handle takes a batch of a path's frames, unless the merging is over.
func (m *merger) handle(p *Path, frames [][]byte) (taken bool) {
	lane := m.lane(p)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return false
	}
	now := m.now()
	for _, f := range frames {
		m.count.packets++
		m.count.bytes += uint64(max(0, len(f)-VnetHdrLen))
		stamp, ok := takeStamp(f)
		switch {
		case !ok || uint8(stamp>>stampBits) != m.tag:
			m.pass(p, f)
		case !m.seq.add(lane, m.seq.extend(stamp), f, now, m.give):
			m.count.drops[dropRxDuplicate]++
		}
	}
	m.settle()
	return true
}

// takeStamp returns a frame's stamp, if it has one, and takes it out of it.
func takeStamp(f []byte) (stamp uint32, ok bool) {
	if len(f) < VnetHdrLen {
		return 0, false
	}
	if stamp, ok = direct.Stamp(f); ok {
		f[0] &^= direct.VnetStamped
		clear(f[stampAt : stampAt+4])
	}
	return stamp, ok
}

// stampAt is where a stamp is in a virtio_net_hdr.
const stampAt = 2

// settle hands over what the sink has joined and sets the timer for what is held.
//
// +checklocks:m.mu
func (m *merger) settle() {
	m.sink.flush()
	if m.seq.held > 0 && !m.armed {
		m.armed = true
		m.timer.Reset(m.seq.hold)
	}
}

// expire is called when a frame may have been held long enough.
func (m *merger) expire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.armed = false
	if m.over {
		return
	}
	next := m.seq.expire(m.now(), m.give)
	m.sink.flush()
	if next > 0 {
		m.armed = true
		m.timer.Reset(max(0, next-m.now()))
	}
}

// +checklocks:m.mu
func (m *merger) deliver(lane uint8, f []byte) { m.pass(m.by[lane], f) }

// pass hands a frame to the stack.
//
// +checklocks:m.mu
func (m *merger) pass(p *Path, f []byte) {
	if reason, ok := m.sink.deliver(p, f); ok {
		m.count.passed++
	} else {
		m.count.drops[reason]++
	}
}

// addTo adds the counters and returns how many frames are held.
func (m *merger) addTo(rx *counters) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	rx.add(&m.count)
	return m.seq.held
}

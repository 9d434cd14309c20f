package netserver

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"junction/ipc"
)

// Sizes of a worker's batches.
const (
	// batchFrames is how many frames a worker takes at once.
	batchFrames = 64
	// headLen is how many bytes of a frame are looked at: Ethernet, IPv6 with
	// extension headers, and what an ICMP error quotes.
	headLen = 256
)

// worker moves the frames of one source. What belongs to it is used by its
// goroutine alone, but for the two fields that say so.
type worker struct {
	s    *Server
	port *port // whose ring it empties; nil for an uplink queue

	now     int64 // of the batch, nanoseconds
	pkt     packet
	hdr     [ipc.VnetHdrLen]byte
	parts   [][]byte
	scratch [maxAnswer]byte
	held    *outlet
	touched []*outlet
	batch   Account
	traced  *Traced // what becomes of the present frame, if that is traced
	tracer  *tracer

	beats atomic.Uint64 // counts rounds; odd while it works
	mu    sync.Mutex
	// +checklocks:mu
	total Account
}

func newWorker(s *Server, p *port) *worker {
	return &worker{s: s, port: p, parts: make([][]byte, 0, 3)}
}

// begin starts a batch.
func (w *worker) begin() {
	w.beats.Add(1)
	w.now = int64(time.Since(w.s.start))
}

// end lets everything of the batch go out and adds up.
func (w *worker) end() {
	for _, o := range w.touched {
		w.hold(o)
		o.flush(o.uplink) // what it has taken must go out: nobody may flush after us
	}
	w.letGo()
	clear(w.touched)
	w.touched = w.touched[:0]
	w.mu.Lock()
	w.total.add(&w.batch)
	w.mu.Unlock()
	w.batch = Account{}
	w.beats.Add(1)
}

func (w *worker) account() (a Account) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.total
}

// hold takes the right to use an outlet, instead of the one held until now.
func (w *worker) hold(o *outlet) {
	if w.held == o {
		return
	}
	w.letGo()
	o.mu.Lock()
	w.held = o
}

func (w *worker) letGo() {
	if w.held != nil {
		w.held.mu.Unlock()
		w.held = nil
	}
}

// put gives the frame in w.hdr and parts to an outlet and counts it.
func (w *worker) put(o *outlet, parts [][]byte) {
	if o == nil {
		w.dropped(dropRingGone)
		return
	}
	w.hold(o)
	// Who sends to the wire waits for it; nobody waits for an instance, lest one
	// that does not read hold up others.
	if why := o.put(&w.hdr, parts, w.port != nil && o.uplink); why != dropNone {
		w.batch.drops[why]++
		w.traceHop(o, why)
		return
	}
	w.traceHop(o, dropNone)
	w.batch.Out++
	o.tap.frame(1, parts)
	if !slices.Contains(w.touched, o) {
		w.touched = append(w.touched, o)
	}
}

// carry out what has been decided about the frame in w.pkt, of which head is
// the beginning and parts is all.
func (w *worker) carry(v verdict, head []byte, parts [][]byte) {
	if w.traced != nil {
		w.traced.Decision = v.String()
	}
	switch v.action {
	case actDrop:
		w.dropped(v.reason)
	case actDeliver:
		w.put(w.s.outletOf(v.owner), parts)
	case actUplink:
		w.put(w.s.uplinkFor(&w.pkt), parts)
	case actAnswer:
		w.answer(v.reply, head, parts)
	case actHolders:
		w.copies(parts, false, func(p *port) bool { return w.s.fwd.owns(&p.sender, v.addr) })
	case actFlood, actAll:
		w.copies(parts, v.action == actAll, func(*port) bool { return true })
	}
}

// copies sends a frame to all ports that match, but not to its sender, and
// with wire onto the wire too.
func (w *worker) copies(parts [][]byte, wire bool, match func(*port) bool) {
	n := uint64(0)
	if wire {
		w.put(w.s.uplinkFor(&w.pkt), parts)
		n++
	}
	for _, p := range w.s.ports.Load().all {
		if p != w.port && match(p) {
			w.put(&p.out, parts)
			n++
		}
	}
	if n == 0 {
		w.dropped(dropNoMember)
		return
	}
	w.batch.Made += n - 1
}

// answer sends what answers the frame back to where it came from.
func (w *worker) answer(r reply, head []byte, parts [][]byte) {
	f, p := &w.s.fwd, &w.pkt
	var frame []byte
	switch r {
	case replyARP:
		frame = f.arpAnswer(w.scratch[:], p)
	case replyNDP:
		frame = f.ndpAnswer(w.scratch[:], p, head)
	case replyReset:
		frame = f.resetAnswer(w.scratch[:], p, head)
	case replyNoPort:
		frame = f.portAnswer(w.scratch[:], p, head)
	case replyEcho, replyFragment:
		f.turnRound(head, p, r == replyEcho)
	}
	if frame != nil {
		parts = append(w.parts[:0], frame)
	} else if r == replyReset {
		w.dropped(dropNoPort)
		return
	}
	w.batch.Answered++
	w.batch.Made++
	w.hdr = [ipc.VnetHdrLen]byte{}
	if w.port != nil {
		w.put(&w.port.out, parts)
		return
	}
	w.put(w.s.uplinkFor(p), parts)
}

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
	segment [headLen]byte // headers of a segment
	pieces  [][]byte      // of a segment
	sums    [][]byte      // what a checksum is of
	held    *outlet       // whose mu it has
	turn    *outlet       // whose gate it has passed
	shares  []share       // of the uplink's queues
	visit   share         // of the ring whose turn it has
	asked   int64         // when the instance was asked what it has joined
	until   time.Time     // how long the batch waits for rings; zero: it has not had to
	timer   *time.Timer
	touched []*outlet
	batch   Account
	traced  *Traced // what becomes of the present frame, if that is traced
	tracer  *tracer

	barriers barriers // of a worker of the uplink

	beats atomic.Uint64 // counts rounds; odd while it works
	mu    sync.Mutex
	// +checklocks:mu
	total Account
}

func newWorker(s *Server, p *port) *worker {
	w := &worker{s: s, port: p, parts: make([][]byte, 0, 3), pieces: make([][]byte, 0, 4), sums: make([][]byte, 0, 4)}
	if p != nil {
		w.timer = time.NewTimer(time.Hour)
		w.timer.Stop()
		w.visit = newShare(&w.beats)
		for range s.uplinks {
			w.shares = append(w.shares, newShare(&w.beats))
		}
	}
	return w
}

// begin starts a batch.
func (w *worker) begin() {
	w.beats.Add(1)
	w.now = int64(time.Since(w.s.start))
	w.until = time.Time{}
}

// end lets everything of the batch go out and adds up. With more, a source that
// is likely to have more frames keeps its turn at the uplink.
func (w *worker) end(more bool) {
	for _, o := range w.touched {
		if w.held != o { // to flush takes no turn
			w.letGo()
			o.mu.Lock()
			w.held = o
		}
		o.flush(o.uplink) // what it has taken must go out: nobody may flush after us
	}
	w.letGo()
	if w.turn != nil && !(more && w.turn.uplink) {
		w.endTurn(more)
	}
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

// put gives the frame in w.hdr and parts to an outlet and counts it. An
// instance's frame waits for a full outlet if patient is set: back-pressure. What
// comes from the wire never does, lest one instance hold up all.
func (w *worker) put(o *outlet, parts [][]byte, patient bool) {
	if o == nil {
		w.dropped(dropRingGone)
		return
	}
	if !w.hold(o) {
		w.batch.drops[dropRingFull]++
		w.traceHop(o, dropRingFull)
		return
	}
	err := o.transmit(&w.hdr, parts)
	if full(err) && patient && w.port != nil {
		err = w.await(o, parts)
	}
	if err != nil {
		why := o.why(err)
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
	w.spend(o, parts)
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
		w.put(w.s.outletOf(v.owner), parts, true)
	case actUplink:
		w.toWire(head, parts)
	case actAnswer:
		w.answer(v.reply, head, parts)
	case actHolders:
		w.copies(head, parts, false, func(p *port) bool { return w.s.fwd.owns(&p.sender, v.addr) })
	case actFlood, actAll:
		everybody := w.pkt.ip.everybody()
		w.copies(head, parts, v.action == actAll, func(p *port) bool { return everybody || p.groups.wants(w.pkt.ip.dst, w.now) })
	case actReport:
		w.port.groups.hear(&w.pkt, head, w.asked)
		w.toWire(head, parts)
	}
}

// copies sends a frame to all ports that match, but not to its sender, and
// with wire onto the wire too.
func (w *worker) copies(head []byte, parts [][]byte, wire bool, match func(*port) bool) {
	n := uint64(0)
	if wire {
		w.toWire(head, parts)
		n++
	}
	for _, p := range w.s.ports.Load().all {
		if p != w.port && match(p) {
			w.put(&p.out, parts, false)
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
		w.put(&w.port.out, parts, false)
		return
	}
	w.put(w.s.uplinkFor(p), parts, false)
}

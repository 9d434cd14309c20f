package modeswitch

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"

	"junction/direct"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// maxParts is the number of pieces, after which a packet is made contiguous.
const maxParts = 64

// queue is one queue of the back end with its locks, counters and scratch space.
type queue struct {
	Queue
	path *Path

	rxMu sync.Mutex
	// +checklocks:rxMu
	rx      counters
	arrears arrears

	txMu sync.Mutex
	// +checklocks:txMu
	tx counters
	// flushing: somebody is about to flush; who finds it set need not.
	// +checklocks:txMu
	flushing bool
	// receiving: the receiver is awake and will flush.
	// +checklocks:txMu
	receiving bool
	// dirty: there are packets to flush. Written with txMu held.
	dirty atomic.Bool
	// waiting: the device is full, and a goroutine that waits for it has the
	// transmit side; packets go to backlog.
	// +checklocks:txMu
	waiting bool
	// emptied is closed when waiting ends.
	// +checklocks:txMu
	emptied chan struct{}
	// +checklocks:txMu
	backlog []*stack.PacketBuffer
	// +checklocks:txMu
	closed bool
	// hdr and parts describe the packet being sent; kept to save allocations.
	// +checklocks:txMu
	hdr [VnetHdrLen]byte
	// +checklocks:txMu
	parts [][]byte
	// +checklocks:txMu
	linear []byte
	// +checklocks:txMu
	cut segmenter
}

// close refuses further packets, after those that were left to somebody to
// flush have gone out: the last ones of a connection often are.
func (q *queue) close() {
	q.txMu.Lock()
	defer q.txMu.Unlock()
	if q.dirty.Load() && !q.waiting && !q.closed {
		_ = q.flush()
	}
	q.closed = true
}

// AddHeader implements stack.LinkEndpoint.
func (*Endpoint) AddHeader(pkt *stack.PacketBuffer) {
	eth := header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize))
	eth.Encode(&header.EthernetFields{
		SrcAddr: pkt.EgressRoute.LocalLinkAddress,
		DstAddr: pkt.EgressRoute.RemoteLinkAddress,
		Type:    pkt.NetworkProtocolNumber,
	})
}

// WritePackets implements stack.LinkEndpoint. It returns how many packets were
// taken; the packet after them is the one that the error is about.
func (e *Endpoint) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range pkts.AsSlice() {
		if err := e.writePacket(pkt); err != nil {
			return i, err
		}
	}
	return pkts.Len(), nil
}

// QDisc returns the queueing discipline to create the NIC with. It passes
// packets on as they come, without the list, and its allocation, that the
// stack's default wraps around each.
func (e *Endpoint) QDisc() stack.QueueingDiscipline { return (*passThrough)(e) }

type passThrough Endpoint

// WritePacket implements stack.QueueingDiscipline.
func (p *passThrough) WritePacket(pkt *stack.PacketBuffer) tcpip.Error {
	return (*Endpoint)(p).writePacket(pkt)
}

// Close implements stack.QueueingDiscipline.
func (*passThrough) Close() {}

func (e *Endpoint) writePacket(pkt *stack.PacketBuffer) tcpip.Error {
	for {
		p := e.egress.Load()
		if p == nil {
			if err, held := e.held.keep(e, pkt); held {
				return err
			}
			continue // it has just been given back
		}
		if err, taken := p.route(pkt).write(pkt, p); taken {
			return err
		}
	}
}

// route returns the queue for a packet, one for all of a flow, while packets
// leave by p.
func (p *Path) route(pkt *stack.PacketBuffer) *queue {
	if takes := p.backend.Takes; takes != nil && !takes(beginning(pkt)) {
		p = p.e.first
	}
	if n := uint32(len(p.queues)); n > 1 {
		return p.queues[flowHash(pkt)%n]
	}
	return p.queues[0]
}

// beginning returns the first bytes of a frame, all headers if the stack made it.
func beginning(pkt *stack.PacketBuffer) []byte {
	views, skip := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip < len(b) {
			return b[skip:]
		}
		skip -= len(b)
	}
	return nil
}

// write takes a packet, unless packets have begun to leave by another path than p.
func (q *queue) write(pkt *stack.PacketBuffer, p *Path) (err tcpip.Error, taken bool) {
	q.txMu.Lock()
	defer q.txMu.Unlock()
	if t := p.e.turn.Load(); t != nil && t.from == p {
		t.take(q)
	}
	if p.e.egress.Load() != p {
		return nil, false
	}
	return q.offer(pkt), true
}

// offer sends a packet, or keeps it while the device is full.
//
// +checklocks:q.txMu
func (q *queue) offer(pkt *stack.PacketBuffer) tcpip.Error {
	q.tx.packets++
	q.tx.bytes += uint64(pkt.Size())
	if q.closed {
		return q.refuse(net.ErrClosed)
	}
	if q.waiting {
		return q.keep(pkt)
	}
	if err := q.send(pkt); err == errKept {
		return nil
	} else if err != nil {
		return q.refuse(err)
	}
	q.dirty.Store(true)
	if !q.flushing && !q.receiving {
		q.kick()
	}
	return nil
}

// flushFor flushes for those who left it to the receiver, which says whether
// it goes on receiving. Most packets answer what it has just delivered, and one
// system call serves all of a batch's answers.
func (q *queue) flushFor(receiving bool) {
	q.txMu.Lock()
	defer q.txMu.Unlock()
	q.receiving = receiving
	if q.dirty.Load() && !q.waiting && !q.closed && q.flush() != nil {
		q.wait()
	}
}

// kick flushes, after others that are ready to send have had the chance to, so
// that one system call serves all.
//
// +checklocks:q.txMu
func (q *queue) kick() {
	q.flushing = true
	q.txMu.Unlock()
	runtime.Gosched()
	q.txMu.Lock()
	q.flushing = false
	if q.dirty.Load() && !q.waiting && !q.closed && q.flush() != nil {
		q.wait()
	}
}

// send hands one packet to the device. When the device is full, the packet is
// kept and errKept returned.
//
// +checklocks:q.txMu
func (q *queue) send(pkt *stack.PacketBuffer) error {
	err := q.transmit(pkt)
	if isFull(err) && q.flush() == nil {
		err = q.transmit(pkt)
	}
	if isFull(err) {
		q.backlog = append(q.backlog, pkt.IncRef())
		q.wait()
		return errKept
	}
	return err
}

// transmit offers one packet to the device.
//
// +checklocks:q.txMu
func (q *queue) transmit(pkt *stack.PacketBuffer) error {
	encodeVnet(&q.hdr, pkt)
	if !q.path.takes(&q.hdr, pkt.Size()) {
		return q.transmitCut(pkt)
	}
	if pkt.Size() > q.path.backend.MTU+header.EthernetMinimumSize && q.hdr[1] == vnetGSONone {
		return direct.ErrTooLong
	}
	q.gather(pkt)
	defer clear(q.parts)
	if err := q.Transmit(&q.hdr, q.parts); err != nil {
		return err
	}
	if c := q.path.e.opts.Capture; c != nil {
		c.frame(q.parts...)
	}
	q.tx.passed++
	return nil
}

// refuse counts a packet that is not sent and says so to the stack.
//
// +checklocks:q.txMu
func (q *queue) refuse(err error) tcpip.Error {
	switch {
	case isFull(err):
		q.tx.drops[dropTxFull]++
		return &tcpip.ErrNoBufferSpace{}
	case isTooLong(err):
		q.tx.drops[dropTxLong]++
		return &tcpip.ErrMessageTooLong{}
	case errors.Is(err, net.ErrClosed):
		q.tx.drops[dropTxClosed]++
		return &tcpip.ErrClosedForSend{}
	}
	q.tx.drops[dropTxQueue]++
	return &tcpip.ErrAborted{}
}

// gather collects the packet's pieces in q.parts. Devices take a limited
// number, so that a packet of very many is copied together first.
//
// +checklocks:q.txMu
func (q *queue) gather(pkt *stack.PacketBuffer) {
	q.parts = q.parts[:0]
	views, skip := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		q.parts = append(q.parts, b[skip:])
		skip = 0
	}
	if len(q.parts) <= maxParts {
		return
	}
	q.linear = q.linear[:0]
	for _, b := range q.parts {
		q.linear = append(q.linear, b...)
	}
	clear(q.parts)
	q.parts = append(q.parts[:0], q.linear)
}

// flush makes the device send. Of its errors only ErrFull matters: it
// has not taken all and must be flushed again. The others show in Transmit too.
//
// +checklocks:q.txMu
func (q *queue) flush() error {
	q.tx.calls++
	q.dirty.Store(false)
	if err := q.Flush(); isFull(err) {
		return err
	}
	return nil
}

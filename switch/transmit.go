package modeswitch

import (
	"errors"
	"net"
	"runtime"
	"sync"

	"junction/direct"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// fullRetries is how often a packet is offered again to a queue that is full,
// each time after a flush. The stack must not block here.
const fullRetries = 8

// maxParts is the number of pieces, after which a packet is made contiguous.
const maxParts = 64

// queue is one queue of the back end with its locks, counters and scratch space.
type queue struct {
	Queue

	rxMu sync.Mutex
	// +checklocks:rxMu
	rx counters

	txMu sync.Mutex
	// +checklocks:txMu
	tx counters
	// flushing: somebody is about to flush; who finds it set need not.
	// +checklocks:txMu
	flushing bool
	// +checklocks:txMu
	closed bool
	// hdr and parts describe the packet being sent; kept to save allocations.
	// +checklocks:txMu
	hdr [VnetHdrLen]byte
	// +checklocks:txMu
	parts [][]byte
	// +checklocks:txMu
	linear []byte
}

func (q *queue) close() {
	q.txMu.Lock()
	defer q.txMu.Unlock()
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
	q := e.queues[0]
	if n := uint32(len(e.queues)); n > 1 {
		q = e.queues[flowHash(pkt)%n]
	}
	q.txMu.Lock()
	err := q.send(pkt, e)
	if err != nil || q.flushing {
		q.txMu.Unlock()
		return err
	}
	q.flushing = true
	q.txMu.Unlock()
	// Others that are ready to send get the chance to, so that one kick serves all.
	runtime.Gosched()
	q.txMu.Lock()
	q.flushing = false
	q.flush()
	q.txMu.Unlock()
	return nil
}

// send offers one packet to the device and counts what became of it.
//
// +checklocks:q.txMu
func (q *queue) send(pkt *stack.PacketBuffer, e *Endpoint) tcpip.Error {
	size := pkt.Size()
	q.tx.packets++
	q.tx.bytes += uint64(size)
	encodeVnet(&q.hdr, pkt)
	if size > e.opts.Backend.MTU+header.EthernetMinimumSize && q.hdr[1] == vnetGSONone {
		q.tx.drops[dropTxLong]++
		return &tcpip.ErrMessageTooLong{}
	}
	q.gather(pkt)
	err := q.offer()
	if c := e.opts.Capture; c != nil && err == nil {
		c.frame(q.parts...)
	}
	clear(q.parts)
	if err == nil {
		q.tx.passed++
		return nil
	}
	reason, refusal := refused(err)
	q.tx.drops[reason]++
	return refusal
}

// refused says what an error of Transmit means to the stack.
func refused(err error) (dropReason, tcpip.Error) {
	switch {
	case errors.Is(err, direct.ErrFull):
		return dropTxFull, &tcpip.ErrNoBufferSpace{}
	case errors.Is(err, direct.ErrTooLong):
		return dropTxLong, &tcpip.ErrMessageTooLong{}
	case errors.Is(err, net.ErrClosed):
		return dropTxClosed, &tcpip.ErrClosedForSend{}
	}
	return dropTxQueue, &tcpip.ErrAborted{}
}

// offer hands q.hdr and q.parts to the device, a few times if it is full.
//
// +checklocks:q.txMu
func (q *queue) offer() error {
	if q.closed {
		return net.ErrClosed
	}
	err := q.Transmit(&q.hdr, q.parts)
	for try := 0; try < fullRetries && errors.Is(err, direct.ErrFull); try++ {
		q.flush()
		err = q.Transmit(&q.hdr, q.parts)
	}
	return err
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

// flush kicks the device. An error shows again in the next Transmit.
//
// +checklocks:q.txMu
func (q *queue) flush() {
	q.tx.calls++
	_ = q.Flush()
}

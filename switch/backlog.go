package modeswitch

import (
	"errors"
	"net"

	"junction/direct"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// The stack takes a packet that the device refuses for lost on the wire, and
// must not be blocked. While a device is full its packets are kept, in order,
// as an interface's transmit queue does on Linux; a goroutine that exists only
// for that time waits for the device and sends them.

// maxBacklog is how many packets a queue keeps; Linux's txqueuelen of Ethernet.
const maxBacklog = 1000

// errKept: the device is full, the packet is in the backlog.
var errKept = errors.New("packet kept")

// keep adds a packet to the backlog.
//
// +checklocks:q.txMu
func (q *queue) keep(pkt *stack.PacketBuffer) tcpip.Error {
	if len(q.backlog) >= maxBacklog {
		return q.refuse(direct.ErrFull)
	}
	q.backlog = append(q.backlog, pkt.IncRef())
	return nil
}

// wait leaves the transmit side to a goroutine until the device has taken
// everything.
//
// +checklocks:q.txMu
func (q *queue) wait() {
	if q.waiting || q.closed {
		return
	}
	q.waiting, q.emptied = true, make(chan struct{})
	q.path.workers.Go(q.drain)
}

// drain waits for the device and sends the backlog.
func (q *queue) drain() {
	for {
		err := q.TransmitWait()
		q.txMu.Lock()
		done := q.sendBacklog(err)
		q.waiting = !done
		if done {
			close(q.emptied)
		}
		q.txMu.Unlock()
		if done {
			return
		}
	}
}

// sendBacklog sends what the device takes of the backlog and reports whether
// nothing is left. An err of the device, or Close, is the end of all of it.
//
// +checklocks:q.txMu
func (q *queue) sendBacklog(err error) (done bool) {
	if q.closed {
		err = net.ErrClosed
	}
	n := 0
	for ; n < len(q.backlog); n++ {
		pkt := q.backlog[n]
		if err == nil {
			if sent := q.transmit(pkt); isFull(sent) {
				break
			} else if sent != nil {
				q.refuse(sent)
			}
		} else {
			q.refuse(err)
		}
		pkt.DecRef()
	}
	left := copy(q.backlog, q.backlog[n:])
	clear(q.backlog[left:])
	q.backlog = q.backlog[:left]
	full := q.flush() != nil
	return err != nil || left == 0 && !full
}

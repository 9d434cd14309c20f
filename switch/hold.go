package modeswitch

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// hold keeps packets, in order, while no path may send: from when the old one
// takes no more until it has sent what it has.
type hold struct {
	mu sync.Mutex
	// +checklocks:mu
	pkts []*stack.PacketBuffer
	// +checklocks:mu
	tx counters // of packets that never came to a path
	// +checklocks:mu
	closed bool
}

// maxHeld is how many packets are kept: what a sender of a million packets a
// second has sent when a blackout has become noticeable, 4 ms later.
const maxHeld = 4096

// keep keeps a packet of e. held is false if there is a path again.
func (h *hold) keep(e *Endpoint, pkt *stack.PacketBuffer) (err tcpip.Error, held bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.egress.Load() != nil {
		return nil, false
	}
	if !h.closed && len(h.pkts) < maxHeld {
		h.pkts = append(h.pkts, pkt.IncRef())
		return nil, true
	}
	h.tx.packets++
	h.tx.bytes += uint64(pkt.Size())
	if h.closed {
		h.tx.drops[dropTxClosed]++
		return &tcpip.ErrClosedForSend{}, true
	}
	h.tx.drops[dropTxFull]++
	return &tcpip.ErrNoBufferSpace{}, true
}

// give sends by p what was held and makes p the path that packets leave by. It
// returns how many packets there were. Who sends meanwhile waits for it.
func (h *hold) give(e *Endpoint, p *Path) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.pkts)
	for _, pkt := range h.pkts {
		p.send(pkt)
		pkt.DecRef()
	}
	clear(h.pkts)
	h.pkts = h.pkts[:0]
	e.egress.Store(p)
	return n
}

// close refuses what is held and all that comes.
func (h *hold) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, pkt := range h.pkts {
		h.tx.packets++
		h.tx.bytes += uint64(pkt.Size())
		h.tx.drops[dropTxClosed]++
		pkt.DecRef()
	}
	h.pkts = nil
}

func (h *hold) addTo(tx *counters, waiting *int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	tx.add(&h.tx)
	for _, pkt := range h.pkts {
		tx.packets++
		tx.bytes += uint64(pkt.Size())
	}
	*waiting += len(h.pkts)
}

package modeswitch

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Path is a back end of an Endpoint. Its methods may be called from any
// goroutine.
type Path struct {
	e       *Endpoint
	backend Backend
	queues  []*queue
	gso     bool // the device cuts segments
	stopped atomic.Bool
	workers sync.WaitGroup
	probes  probes
}

// Errors of paths.
var (
	// ErrMismatch: a back end that cannot take the place of the present one.
	ErrMismatch = errors.New("the back end does not fit the endpoint")
	// ErrEgress: the path that packets leave by cannot be removed.
	ErrEgress = errors.New("packets leave by this path")
)

func newPath(e *Endpoint, b Backend) *Path {
	p := &Path{e: e, backend: b, gso: b.TXChecksum && b.GSOMax > 0}
	p.probes.more = make(chan struct{})
	for _, q := range b.Queues {
		p.queues = append(p.queues, &queue{Queue: q, path: p})
	}
	return p
}

// First returns the path over Options.Backend.
func (e *Endpoint) First() *Path { return e.first }

// Egress returns the path that packets leave by, nil while Move holds them.
func (e *Endpoint) Egress() *Path { return e.egress.Load() }

// Add makes a path over a further back end, from which the endpoint receives at
// once, if it is started. The back end must have the endpoint's MAC address and
// carry its largest packet; what it does for checksums and segments may differ.
// The caller keeps it open until Remove has returned. Errors: ErrBackend,
// ErrMismatch, net.ErrClosed.
func (e *Endpoint) Add(b Backend) (*Path, error) {
	if err := b.validate(); err != nil {
		return nil, err
	}
	first := &e.opts.Backend
	if !slices.Equal(b.MAC, first.MAC) || b.MTU < first.MTU {
		return nil, fmt.Errorf("%w: MAC %v and MTU %d, needed are %v and %d", ErrMismatch, b.MAC, b.MTU, first.MAC, first.MTU)
	}
	p := newPath(e, b)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped.Load() {
		return nil, net.ErrClosed
	}
	if e.stack != nil {
		if err := p.start(); err != nil {
			return nil, err
		}
	}
	e.sums.Lock()
	defer e.sums.Unlock()
	paths := append(slices.Clone(*e.paths.Load()), p)
	e.paths.Store(&paths)
	return p, nil
}

// start begins to receive. All queues or none.
//
// +checklocks:p.e.mu
func (p *Path) start() error {
	var rs []*receiver
	for _, q := range p.queues {
		sink, err := newSink(p.e.stack, p.e.nic, p.e.dispatcher, !p.backend.RXJoined)
		if err != nil {
			return err
		}
		rs = append(rs, &receiver{e: p.e, q: q, sink: sink, batch: make([][]byte, p.e.opts.Batch)})
	}
	for _, r := range rs {
		p.workers.Go(r.run)
	}
	return nil
}

func (p *Path) stop() {
	p.stopped.Store(true)
	for _, q := range p.queues {
		q.Wake()
	}
}

// Remove ends the path's goroutines and waits for them: the back end may be
// closed then. What was received by then is delivered. Not for a goroutine that
// delivers packets. Error: ErrEgress.
func (p *Path) Remove() error {
	e := p.e
	if e.egress.Load() == p {
		return ErrEgress
	}
	for _, q := range p.queues {
		q.close()
	}
	p.stop()
	p.workers.Wait()
	e.sums.Lock()
	defer e.sums.Unlock()
	paths := slices.Clone(*e.paths.Load())
	i := slices.Index(paths, p)
	if i < 0 {
		return nil // removed already
	}
	paths = slices.Delete(paths, i, i+1)
	e.paths.Store(&paths)
	var waiting int
	p.addTo(&e.gone.rx, &e.gone.tx, &waiting)
	return nil
}

// addTo adds the counters of p's queues to others.
func (p *Path) addTo(rx, tx *counters, waiting *int) {
	for _, q := range p.queues {
		q.rxMu.Lock()
		rx.add(&q.rx)
		q.rxMu.Unlock()
		q.txMu.Lock()
		tx.add(&q.tx)
		*waiting += len(q.backlog)
		q.txMu.Unlock()
	}
}

// takes tells whether the device takes a packet of size bytes, Ethernet header
// included, with what its header leaves to the device.
func (p *Path) takes(hdr *[VnetHdrLen]byte, size int) bool {
	switch {
	case hdr[0]&vnetNeedsCsum == 0:
		return true
	case !p.backend.TXChecksum:
		return false
	}
	return hdr[1] == vnetGSONone || p.gso && size <= p.backend.GSOMax+ethernetLen
}

// settle returns when all who have found that packets leave by p have sent
// theirs; later ones look again.
func (p *Path) settle() {
	for _, q := range p.queues {
		q.txMu.Lock()
		//lint:ignore SA2001 who had the lock is what we wait for
		q.txMu.Unlock()
	}
}

// send sends a packet that was held, wherever others leave.
func (p *Path) send(pkt *stack.PacketBuffer) {
	q := p.route(pkt)
	q.txMu.Lock()
	defer q.txMu.Unlock()
	_ = q.offer(pkt) // counted; who sent it was told long ago that it is on its way
}

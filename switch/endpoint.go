package modeswitch

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Options configures an Endpoint.
type Options struct {
	// Backend is what lies below at first (see Add for others). The caller keeps
	// it open until Close, or Path.Remove, has returned, and closes it then.
	Backend Backend
	// Batch is how many frames a queue is asked for at once. Default 64.
	Batch int
	// Spin is how long a queue's goroutine looks for further frames before it
	// sleeps. 0 means that it sleeps at once.
	Spin time.Duration
	// Capture, if not nil, gets a copy of every frame.
	Capture *Capture
}

const defaultBatch = 64

// Endpoint is the link endpoint of an instance's NIC.
//
// Create the NIC with it and with QDisc, configure addresses and routes, then
// call Start. Received frames go straight to the network protocols' endpoints
// of that NIC, because the NIC's own entry would replace what is known of each
// frame's checksum by one constant for all.
//
// It has one back end, a Path, at first. While a mode is exchanged for another
// it has two: it receives from both, and Move makes it send to the other one.
type Endpoint struct {
	opts  Options
	first *Path

	// egress is where packets leave; nil while they are held (see Move).
	egress atomic.Pointer[Path]
	turn   atomic.Pointer[turn] // nil but while Move looks for a moment to turn in
	look   time.Duration        // how long it does
	held   hold
	merger atomic.Pointer[merger] // nil but during an exchange

	addr    atomic.Pointer[tcpip.LinkAddress]
	mtu     atomic.Uint32
	stopped atomic.Bool

	moving sync.Mutex // one Move at a time

	mu sync.Mutex
	// +checklocks:mu
	dispatcher stack.NetworkDispatcher
	// +checklocks:mu
	stack *stack.Stack // nil before Start
	// +checklocks:mu
	nic tcpip.NICID
	// +checklocks:mu
	onClose func()

	// paths is never changed once it is published: the stack stops them with
	// locks held that who counts may be waiting for.
	paths atomic.Pointer[[]*Path]
	// sums is held to change paths and merger, and to add up.
	sums sync.Mutex
	// +checklocks:sums
	gone struct{ rx, tx counters } // of paths and mergers that are no more
}

var (
	_ stack.LinkEndpoint = (*Endpoint)(nil)
	_ stack.GSOEndpoint  = (*Endpoint)(nil)
)

// New makes an endpoint over a back end. Nothing is received before Start.
func New(opts Options) (*Endpoint, error) {
	if err := opts.Backend.validate(); err != nil {
		return nil, err
	}
	if opts.Batch < 0 || opts.Spin < 0 {
		return nil, fmt.Errorf("batch %d and spin %v must not be negative", opts.Batch, opts.Spin)
	}
	if opts.Batch == 0 {
		opts.Batch = defaultBatch
	}
	e := &Endpoint{opts: opts, look: turnTime}
	addr := tcpip.LinkAddress(opts.Backend.MAC)
	e.addr.Store(&addr)
	e.mtu.Store(uint32(opts.Backend.MTU))
	e.first = newPath(e, opts.Backend)
	e.paths.Store(&[]*Path{e.first})
	e.egress.Store(e.first)
	return e, nil
}

// Errors of Start.
var (
	ErrNotAttached = errors.New("the endpoint belongs to no NIC, or to a removed one")
	ErrStarted     = errors.New("the endpoint has been started already")
)

// Start begins to receive for the NIC id of s, which must have been created
// with this endpoint.
func (e *Endpoint) Start(s *stack.Stack, id tcpip.NICID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dispatcher == nil || e.stopped.Load() {
		return ErrNotAttached
	}
	if e.stack != nil {
		return ErrStarted
	}
	e.stack, e.nic = s, id
	for _, p := range *e.paths.Load() {
		if err := p.start(); err != nil {
			e.stack = nil
			return err
		}
	}
	return nil
}

// stop makes the goroutines end soon.
func (e *Endpoint) stop() {
	e.stopped.Store(true)
	for _, p := range *e.paths.Load() {
		p.stop()
	}
}

// Attach implements stack.LinkEndpoint. It never blocks: the stack calls it
// with locks held that a receiving goroutine may want.
func (e *Endpoint) Attach(d stack.NetworkDispatcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dispatcher = d
	if d == nil {
		e.stop()
	}
}

// IsAttached implements stack.LinkEndpoint.
func (e *Endpoint) IsAttached() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.dispatcher != nil
}

// Wait implements stack.LinkEndpoint and does nothing: Stack.Wait calls it
// with the stack's lock held, which a receiving goroutine may be waiting for.
// Close, which the stack calls afterwards without locks, waits.
func (*Endpoint) Wait() {}

// Close implements stack.LinkEndpoint: it ends the receiving goroutines and
// waits for them, and refuses packets from then on. It may be called more than
// once, but not from a receiving goroutine or with a lock of the stack held.
func (e *Endpoint) Close() {
	e.mu.Lock()
	e.stop()
	action := e.onClose
	e.onClose = nil
	e.mu.Unlock()
	paths := *e.paths.Load() // stopped: none is added any more
	e.held.close()
	for _, p := range paths {
		for _, q := range p.queues {
			q.close()
		}
	}
	for _, p := range paths {
		p.stop() // who waits for a full device looks again
		p.workers.Wait()
	}
	e.EndMerge()
	if action != nil {
		action()
	}
}

// SetOnCloseAction implements stack.LinkEndpoint.
func (e *Endpoint) SetOnCloseAction(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onClose = f
}

// MTU implements stack.LinkEndpoint.
func (e *Endpoint) MTU() uint32 { return e.mtu.Load() }

// SetMTU implements stack.LinkEndpoint. It ignores an MTU that the device
// cannot carry and, once there is a NIC, one below what IPv6 needs (RFC 8200,
// section 5): the stack would send packets that can never be made to fit.
func (e *Endpoint) SetMTU(mtu uint32) {
	least := uint32(MinMTU)
	if e.IsAttached() {
		least = min(header.IPv6MinimumMTU, e.MTU())
	}
	if mtu >= least && mtu <= uint32(e.opts.Backend.MTU) { // every back end carries as much
		e.mtu.Store(mtu)
	}
}

// LinkAddress implements stack.LinkEndpoint.
func (e *Endpoint) LinkAddress() tcpip.LinkAddress { return *e.addr.Load() }

// SetLinkAddress implements stack.LinkEndpoint.
func (e *Endpoint) SetLinkAddress(addr tcpip.LinkAddress) { e.addr.Store(&addr) }

// MaxHeaderLength implements stack.LinkEndpoint.
func (*Endpoint) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// ARPHardwareType implements stack.LinkEndpoint.
func (*Endpoint) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// Capabilities implements stack.LinkEndpoint. Checksum capabilities are left
// out on purpose: received frames carry their own word on it (see Endpoint),
// and a stack told that the device makes checksums would leave them out of
// datagrams in fragments too, which no device completes. TCP segments get
// partial checksums through GSO.
func (*Endpoint) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired
}

// GSOMaxSize implements stack.GSOEndpoint.
func (e *Endpoint) GSOMaxSize() uint32 {
	if p := e.present(); p.gso {
		return uint32(p.backend.GSOMax)
	}
	return stack.GVisorGSOMaxSize
}

// SupportedGSO implements stack.GSOEndpoint. For a device that does not cut
// segments the stack does, late, which makes bulk sending over AF_XDP at an
// MTU of 1500 1.5 times as fast. A connection keeps to what held when it was
// made: for one that had a device to cut its segments, and has another one now,
// the endpoint does (see segmenter).
func (e *Endpoint) SupportedGSO() stack.SupportedGSO {
	if e.present().gso {
		return stack.HostGSOSupported
	}
	return stack.GVisorGSOSupported
}

// present is the path that packets leave by, or the first one if they are held or
// only some of them leave by another.
func (e *Endpoint) present() *Path {
	if p := e.egress.Load(); p != nil && !p.backend.Partly {
		return p
	}
	return e.first
}

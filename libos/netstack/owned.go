package netstack

import (
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// ownedPorts makes a transport protocol whose sockets get their ports from k.
func ownedPorts(make stack.TransportProtocolFactory, k *keeper) stack.TransportProtocolFactory {
	return func(s *stack.Stack) stack.TransportProtocol {
		p := make(s)
		owned := &ownedProtocol{p, k}
		if t, ok := p.(tcpOnly); ok {
			return &ownedTCP{owned, t}
		}
		return owned
	}
}

type ownedProtocol struct {
	stack.TransportProtocol
	k *keeper
}

type ownedTCP struct {
	*ownedProtocol
	tcpOnly
}

// tcpOnly is what the stack takes for granted, or looks for, in TCP beyond
// stack.TransportProtocol.
type tcpOnly interface {
	stack.SendBufSizeProto
	QueuePacket(stack.TransportEndpoint, stack.TransportEndpointID, *stack.PacketBuffer)
}

// NewEndpoint implements stack.TransportProtocol.
func (p *ownedProtocol) NewEndpoint(net tcpip.NetworkProtocolNumber, wq *waiter.Queue) (tcpip.Endpoint, tcpip.Error) {
	ep, err := p.TransportProtocol.NewEndpoint(net, wq)
	if err != nil {
		return nil, err
	}
	return &ownedEndpoint{Endpoint: ep, k: p.k, v6: net == ipv6.ProtocolNumber, udp: p.Number() == udp.ProtocolNumber, wq: wq}, nil
}

// ownedEndpoint is a socket that asks for its port before its stack gives it
// one. Connections that a listener accepts are the stack's own endpoints: they
// have the listener's port.
type ownedEndpoint struct {
	tcpip.Endpoint
	k       *keeper
	v6, udp bool
	wq      *waiter.Queue

	mu sync.Mutex
	// +checklocks:mu
	hold *hold
	// +checklocks:mu
	bound bool // it has a port, held or its stack's own affair
	// +checklocks:mu
	closed bool
}

// maxTries bounds the search for an ephemeral port that is free here too: only
// sockets on the loopback interface can have one that is free elsewhere.
const maxTries = 16

// Bind implements tcpip.Endpoint.
func (e *ownedEndpoint) Bind(addr tcpip.FullAddress) tcpip.Error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bind(addr, WhyBind)
}

// +checklocks:e.mu
func (e *ownedEndpoint) bind(addr tcpip.FullAddress, why Why) tcpip.Error {
	a, shared := e.address(addr.Addr)
	if e.bound || !shared {
		return e.bindHere(addr)
	}
	r := PortRequest{UDP: e.udp, Addr: a, Port: addr.Port, Why: why, V6Only: e.v6 && e.SocketOptions().GetV6Only()}
	for range maxTries {
		h, err := e.k.acquire(r)
		if err != nil {
			return err
		}
		if h == nil {
			return e.bindHere(addr)
		}
		addr.Port = h.key.Port
		err = e.bindHere(addr)
		if err == nil {
			e.hold = h
			return nil
		}
		defer e.k.leave(h) // after the last try, lest it be offered again
		if _, inUse := err.(*tcpip.ErrPortInUse); !inUse || r.Port != 0 {
			return err
		}
	}
	return &tcpip.ErrNoPortAvailable{}
}

// +checklocks:e.mu
func (e *ownedEndpoint) bindHere(addr tcpip.FullAddress) tcpip.Error {
	err := e.Endpoint.Bind(addr)
	e.bound = e.bound || err == nil
	return err
}

// address returns a local address in netip's form, and whether it is shared
// with other instances: not a loopback or group address.
func (e *ownedEndpoint) address(a tcpip.Address) (netip.Addr, bool) {
	ip, ok := netip.AddrFromSlice(a.AsSlice())
	switch {
	case !ok && e.v6:
		return netip.IPv6Unspecified(), true
	case !ok:
		return netip.IPv4Unspecified(), true
	}
	ip = ip.Unmap()
	broadcast := ip == netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return ip, !ip.IsLoopback() && !ip.IsMulticast() && !broadcast
}

// Connect implements tcpip.Endpoint.
func (e *ownedEndpoint) Connect(to tcpip.FullAddress) tcpip.Error {
	if err := e.bindFor(to, WhyConnect); err != nil {
		return err
	}
	return e.Endpoint.Connect(to)
}

// Write implements tcpip.Endpoint.
func (e *ownedEndpoint) Write(p tcpip.Payloader, o tcpip.WriteOptions) (int64, tcpip.Error) {
	if e.udp && o.To != nil {
		if err := e.bindFor(tcpip.FullAddress{}, WhySend); err != nil {
			return 0, err
		}
	}
	return e.Endpoint.Write(p, o)
}

// Listen implements tcpip.Endpoint.
func (e *ownedEndpoint) Listen(backlog int) tcpip.Error {
	if !e.udp {
		if err := e.bindFor(tcpip.FullAddress{}, WhySend); err != nil {
			return err
		}
	}
	return e.Endpoint.Listen(backlog)
}

// bindFor binds a socket without a port that is to connect, send or listen.
// TCP connections within the instance need no port from anybody.
func (e *ownedEndpoint) bindFor(to tcpip.FullAddress, why Why) tcpip.Error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.bound || e.closed {
		return nil
	}
	if ip, ok := netip.AddrFromSlice(to.Addr.AsSlice()); ok && !e.udp && ip.Unmap().IsLoopback() {
		return nil
	}
	return e.bind(tcpip.FullAddress{}, why)
}

// Accept implements tcpip.Endpoint.
func (e *ownedEndpoint) Accept(peer *tcpip.FullAddress) (tcpip.Endpoint, *waiter.Queue, tcpip.Error) {
	ep, wq, err := e.Endpoint.Accept(peer)
	if err == nil {
		e.k.watch(wq)
	}
	return ep, wq, err
}

// watch has the keeper look when the connection that wq is of ends.
func (k *keeper) watch(wq *waiter.Queue) {
	entry := waiter.NewFunctionEntry(waiter.EventHUp, func(waiter.EventMask) { k.ended() })
	wq.EventRegister(&entry)
}

// Close implements tcpip.Endpoint.
func (e *ownedEndpoint) Close() { e.end(e.Endpoint.Close) }

// Abort implements tcpip.Endpoint.
func (e *ownedEndpoint) Abort() { e.end(e.Endpoint.Abort) }

func (e *ownedEndpoint) end(f func()) {
	if !e.udp && tcp.EndpointState(e.State()) != tcp.StateInitial {
		e.k.watch(e.wq)
	}
	f()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.hold != nil {
		e.k.leave(e.hold)
		e.hold = nil
	}
}

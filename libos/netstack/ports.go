package netstack

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/ports"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Why a port is asked for: it decides the error when none is free.
type Why uint8

// The reasons.
const (
	WhyBind Why = iota
	WhyConnect
	WhySend
)

// PortRequest asks for a port on an address, or on all of a family's.
type PortRequest struct {
	UDP    bool
	Addr   netip.Addr // may be a wildcard
	Port   uint16     // 0: any
	V6Only bool       // the wildcard of IPv6 does not include IPv4
	Why    Why
}

// Ports owns the ports of addresses that other instances use too. It is asked
// before a socket gets a port there. Between the sockets of this stack, who may
// share a port is decided here; a port is asked for once. Implementations may
// be called from any goroutine.
type Ports interface {
	// Acquire returns a port and the number by which Release takes it back. An
	// error wraps the unix.Errno for the program: EADDRINUSE and so on;
	// EADDRNOTAVAIL for a wildcard means that there is nothing to own, EAGAIN
	// that no port is free for what is not a bind.
	Acquire(PortRequest) (holder uint64, port uint16, err error)
	// Release gives a port back.
	Release(holder uint64) error
}

// keeper holds ports for as long as this stack has any use for them. That is
// longer than a socket's life: connections that it accepted, and TIME-WAIT,
// keep a port. What counts is the stack's own table of ports.
type keeper struct {
	owner Ports
	stack *stack.Stack

	mu sync.Mutex
	// +checklocks:mu
	holds map[PortRequest]*hold // by what they are for: Why is 0, Port is not
	// +checklocks:mu
	idle map[*hold]bool // used by no socket, but perhaps by connections
	// +checklocks:mu
	sweeping bool
	kick     chan struct{} // of capacity 1: a connection may have ended
}

// hold is a port that this stack has.
type hold struct {
	key     PortRequest
	holder  uint64
	sockets int // with the keeper's mu held
}

func newKeeper(owner Ports) *keeper {
	return &keeper{owner: owner, holds: make(map[PortRequest]*hold), idle: make(map[*hold]bool), kick: make(chan struct{}, 1)}
}

// acquire gives a socket a port; nil for one that is not to be owned.
func (k *keeper) acquire(r PortRequest) (*hold, tcpip.Error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := r
	key.Why = 0
	if h := k.holds[key]; h != nil && r.Port != 0 {
		h.sockets++
		delete(k.idle, h)
		return h, nil
	}
	holder, port, err := k.owner.Acquire(r)
	if err != nil {
		if r.Addr.IsUnspecified() && errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil, nil
		}
		return nil, refusal(err, r.Why)
	}
	key.Port = port
	h := &hold{key: key, holder: holder, sockets: 1}
	k.holds[key] = h
	return h, nil
}

// refusal translates an errno for the Sentry, which translates it back.
func refusal(err error, why Why) tcpip.Error {
	var errno unix.Errno
	_ = errors.As(err, &errno)
	if errno == unix.EAGAIN && why == WhyConnect {
		errno = unix.EADDRNOTAVAIL
	}
	switch errno {
	case unix.EADDRINUSE:
		return &tcpip.ErrPortInUse{}
	case unix.EADDRNOTAVAIL:
		return &tcpip.ErrBadLocalAddress{}
	case unix.EAGAIN:
		return &tcpip.ErrNoPortAvailable{}
	case unix.EACCES:
		return &tcpip.ErrBroadcastDisabled{} // the one that becomes EACCES
	}
	return &tcpip.ErrNoBufferSpace{}
}

// leave ends a socket's use of a port, and gives it back if that was the last.
func (k *keeper) leave(h *hold) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h.sockets--; h.sockets > 0 || k.release(h) {
		return
	}
	k.idle[h] = true
	if !k.sweeping {
		k.sweeping = true
		go k.sweep()
	}
}

// release gives a port back if the stack's table says that nothing uses it.
//
// +checklocks:k.mu
func (k *keeper) release(h *hold) bool {
	res := h.reservation()
	// A reservation that shares with nobody is had only on a free port.
	if _, err := k.stack.ReservePort(k.stack.SecureRNG(), res, nil); err != nil {
		return false
	}
	k.stack.ReleasePort(res)
	delete(k.holds, h.key)
	delete(k.idle, h)
	// Of an error there is nothing to do: then the owner has gone, and with it
	// what it knew.
	_ = k.owner.Release(h.holder)
	return true
}

func (h *hold) reservation() ports.Reservation {
	r := ports.Reservation{Transport: header.TCPProtocolNumber, Port: h.key.Port}
	if h.key.UDP {
		r.Transport = header.UDPProtocolNumber
	}
	if h.key.Addr.Is6() {
		r.Networks = append(r.Networks, ipv6.ProtocolNumber)
	}
	if h.key.Addr.Is4() || h.key.Addr.IsUnspecified() && !h.key.V6Only {
		r.Networks = append(r.Networks, ipv4.ProtocolNumber)
	}
	if !h.key.Addr.IsUnspecified() {
		r.Addr = tcpip.AddrFromSlice(h.key.Addr.AsSlice())
	}
	return r
}

// sweepEvery bounds how long a port is kept whose last connection's end was
// told by no event. Sweeps take at most one in sweepShare of a processor's time:
// thousands of connections may be in TIME-WAIT while others come and go.
const (
	sweepEvery = time.Second
	sweepShare = 16
)

// sweep gives ports back when their last connection has ended, until no idle
// ones are left.
func (k *keeper) sweep() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-k.kick:
		case <-t.C:
		}
		began := time.Now()
		if !k.sweepOnce() {
			return
		}
		time.Sleep((sweepShare - 1) * time.Since(began))
	}
}

// sweepOnce looks at all idle ports, and tells whether there is more to do.
func (k *keeper) sweepOnce() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for h := range k.idle {
		k.release(h)
	}
	k.sweeping = len(k.idle) > 0
	return k.sweeping
}

// ended says that a connection may have.
func (k *keeper) ended() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

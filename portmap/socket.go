package portmap

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"junction/portmap/table"
)

// Socket is a holder of a local port, by a number that its instance chooses.
type Socket uint64

// Purpose is why a port is asked for.
type Purpose uint8

// The purposes. They differ in the errno of a bind to port 0 when none is
// free; the last two are only for port 0.
const (
	ForBind    Purpose = iota // bind(): EADDRINUSE
	ForConnect                // connect() of an unbound socket: EADDRNOTAVAIL
	ForSend                   // sendto(), listen() of an unbound socket: EAGAIN
)

// Request is a bind, explicit or implied.
type Request struct {
	Socket  Socket
	Proto   table.Proto
	Addr    netip.Addr // an address of the instance or a wildcard
	Port    uint16     // 0: any ephemeral port
	Purpose Purpose
	Options SocketOptions
}

// SocketOptions are the options of a socket that bear on a bind.
type SocketOptions struct {
	ReuseAddr bool   // SO_REUSEADDR
	ReusePort bool   // SO_REUSEPORT
	V6Only    bool   // IPV6_V6ONLY: the wildcard of IPv6 does not include IPv4
	UID       uint32 // the owner's: with SO_REUSEPORT only one user's sockets share a port
}

// socket is a bound socket, open or in TIME_WAIT.
type socket struct {
	id     Socket
	owner  *instance
	proto  table.Proto
	number uint16
	class  class
	ports  []*port

	until time.Duration // end of TIME_WAIT
	seq   uint64        // order among equal ends
}

// Bind gives a socket a port on one or all of the instance's addresses, and
// returns the address as asked for with the port. It changes nothing if it fails.
//
// Errors: ESRCH (the instance has not joined); EINVAL (bound already, bad
// request); EADDRNOTAVAIL (not the instance's address; for a wildcard, it has
// none of the family: then there is nothing on the wire to own, and its own
// stack decides); EACCES (below MinPort); EADDRINUSE; ENOBUFS (over a limit
// of the lease, or its share); if no ephemeral port is free, or that would be more
// than its share, what the Purpose says.
func (m *Map) Bind(id Instance, r Request) (netip.AddrPort, error) {
	number, err := m.bind(id, r)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("bind %v %v of instance %d: %w", r.Proto, netip.AddrPortFrom(r.Addr, r.Port), id, err)
	}
	return netip.AddrPortFrom(r.Addr, number), nil
}

func (m *Map) bind(id Instance, r Request) (uint16, error) {
	inst, err := m.get(id)
	if err != nil {
		return 0, err
	}
	if err := inst.admits(r); err != nil {
		return 0, err
	}
	spaces := inst.covered(r.Addr, r.Options.V6Only)
	if len(spaces) == 0 {
		return 0, failure(unix.EADDRNOTAVAIL, "the instance has no such address")
	}
	s := &socket{id: r.Socket, owner: inst, proto: r.Proto, number: r.Port, class: r.Options.class()}
	if r.Port == 0 {
		s.number, err = m.ephemeral(inst, spaces, r)
	} else {
		err = inst.mayTake(spaces, s)
	}
	if err != nil {
		return 0, err
	}
	return s.number, m.take(spaces, s)
}

// admits checks what does not depend on other sockets.
func (i *instance) admits(r Request) error {
	switch {
	case r.Proto >= table.Protos || r.Purpose > ForSend || r.Purpose != ForBind && r.Port != 0:
		return invalid("bad request")
	case !r.Addr.IsValid() || r.Addr.Zone() != "":
		return invalid("bad address")
	case i.sockets[r.Socket] != nil:
		return invalid("socket %d is bound", r.Socket)
	case r.Port != 0 && r.Port < i.lease.MinPort:
		return failure(unix.EACCES, "ports below %d are not for this instance", i.lease.MinPort)
	case len(i.sockets)+i.waiting >= i.lease.MaxSockets:
		return failure(unix.ENOBUFS, "it has %d sockets", i.lease.MaxSockets)
	}
	return nil
}

// covered returns those of the instance's addresses that a bind to a includes.
func (i *instance) covered(a netip.Addr, v6only bool) []*space {
	only4 := a.Is4In6() || a.Is4()
	a = a.Unmap()
	match := func(s *space) bool { return s.addr == a }
	if a.IsUnspecified() {
		match = func(s *space) bool {
			if s.addr.Is4() {
				return only4 || !v6only
			}
			return !only4
		}
	}
	var spaces []*space
	for _, s := range i.addrs {
		if match(s) {
			spaces = append(spaces, s)
		}
	}
	return spaces
}

// ephemeral chooses a port that nobody has on any of the addresses.
func (m *Map) ephemeral(inst *instance, spaces []*space, r Request) (uint16, error) {
	errno := [...]unix.Errno{ForBind: unix.EADDRINUSE, ForConnect: unix.EADDRNOTAVAIL, ForSend: unix.EAGAIN}[r.Purpose]
	for _, s := range spaces {
		if err := m.shares(inst, pool{s, r.Proto, true}, errno); err != nil {
			return 0, err
		}
	}
	c := chooser{m.opt.EphemeralLow, m.opt.EphemeralHigh, spaces, r.Proto}
	number, ok := c.choose(m.rng)
	if !ok {
		return 0, failure(errno, "no ephemeral port is free")
	}
	return number, nil
}

// mayTake checks the socket's port for conflicts on each of the addresses.
func (i *instance) mayTake(spaces []*space, s *socket) error {
	for _, sp := range spaces {
		p := sp.ports[s.proto].get(s.number)
		switch {
		case p == nil:
		case p.owner != i:
			return failure(unix.EADDRINUSE, "instance %d has it at %v", p.owner.id, sp.addr)
		case !p.admits(s.class):
			return failure(unix.EADDRINUSE, "a socket of the instance has it at %v", sp.addr)
		}
	}
	return nil
}

// take makes the socket a user of its port, for which it may be, on the addresses.
func (m *Map) take(spaces []*space, s *socket) error {
	i := s.owner
	fresh := 0
	for _, sp := range spaces {
		if p := sp.ports[s.proto].get(s.number); p == nil {
			fresh++
			if err := m.shares(i, m.poolOf(sp, s.proto, s.number), unix.ENOBUFS); err != nil {
				return err
			}
		} else if p.full(s.class) {
			return failure(unix.ENOBUFS, "too many users share it")
		}
	}
	if limit := i.lease.MaxPorts; limit != 0 && len(i.ports)+fresh > limit && !i.returning {
		return failure(unix.ENOBUFS, "it has %d of at most %d ports", len(i.ports), limit)
	}
	for _, sp := range spaces {
		p := sp.ports[s.proto].get(s.number)
		if p == nil {
			p = m.acquire(sp, s.proto, s.number, i)
			m.publish(p, table.Port)
		}
		p.enter(s.class)
		s.ports = append(s.ports, p)
	}
	i.sockets[s.id] = s
	return nil
}

// Listen says that a socket listens, or that it does so no more. Listening
// conflicts with what may have been bound to the port beside it. Errors: ESRCH;
// EINVAL (not a bound TCP socket); EADDRINUSE.
func (m *Map) Listen(id Instance, sock Socket, listening bool) error {
	s, err := m.socket(id, sock)
	if err != nil {
		return err
	}
	if s.proto != table.TCP {
		return invalid("socket %d of instance %d listens: not a TCP socket", sock, id)
	}
	next := s.class
	next.listening = listening
	if listening && !s.admitted() {
		return failure(unix.EADDRINUSE, "socket %d of instance %d listens on port %d: another does", sock, id, s.number)
	}
	s.become(next)
	return nil
}

func (m *Map) socket(id Instance, sock Socket) (*socket, error) {
	inst, err := m.get(id)
	if err != nil {
		return nil, err
	}
	s := inst.sockets[sock]
	if s == nil {
		return nil, invalid("instance %d has no bound socket %d", id, sock)
	}
	return s, nil
}

// Close ends a socket; its number is free for another. Ports that no other
// socket holds are free at once or, if timeWait is positive and the socket is
// TCP's, when that time, at most MaxTimeWait, has passed. Errors: ESRCH; EINVAL
// (no such socket, a negative time).
func (m *Map) Close(id Instance, sock Socket, timeWait time.Duration) error {
	s, err := m.socket(id, sock)
	if err != nil {
		return err
	}
	if timeWait < 0 {
		return invalid("close socket %d of instance %d: TIME_WAIT %v", sock, id, timeWait)
	}
	delete(s.owner.sockets, sock)
	if timeWait == 0 || s.proto != table.TCP {
		m.leavePorts(s)
		return nil
	}
	c := s.class
	c.listening, c.waiting, c.uid = false, true, 0 // whose it was does not matter any more
	s.become(c)
	s.owner.waiting++
	s.until = m.now + min(timeWait, m.opt.MaxTimeWait)
	m.seq++
	s.seq = m.seq
	m.waits.push(s)
	return nil
}

// leavePorts ends the socket's use of its ports.
func (m *Map) leavePorts(s *socket) {
	for _, p := range s.ports {
		p.exit(s.class)
		if len(p.users) == 0 {
			m.release(p)
		}
	}
}

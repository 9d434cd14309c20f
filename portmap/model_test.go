package portmap

import (
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"junction/portmap/table"
)

// endpoint is what can be owned.
type endpoint struct {
	proto table.Proto
	addr  netip.Addr
	port  uint16
}

// model is a Map for people who have time: a list of sockets, searched whole.
type model struct {
	now    time.Duration
	leases map[Instance]*modelLease
	socks  []*modelSocket
	kept   map[endpoint]Instance
	mode   map[endpoint]table.Mode // of owned ports
	share  int
}

type modelLease struct {
	Lease
	absent bool
	modes  map[netip.Addr]table.Mode // of dedicated addresses
}

type modelSocket struct {
	inst    Instance
	id      Socket
	eps     []endpoint
	opt     SocketOptions
	listens bool
	waits   bool
	until   time.Duration
}

// The world of the property test: small, so that everything collides.
var (
	worldShared    = addrs("198.18.0.1", "198.18.0.2", "fd00::1")
	worldDedicated = addrs("198.19.0.1", "fd00::9")
	worldPorts     = []uint16{79, 80, 5000, 5001, 5002}
	worldAddrs     = append(slices.Clone(worldShared), worldDedicated...)
	worldBinds     = append(addrs("0.0.0.0", "::", "::ffff:198.18.0.1", "198.18.0.3"), worldAddrs...)
	worldProtos    = []table.Proto{table.TCP, table.UDP}
	worldModes     = []table.Mode{table.Drop, table.Server, table.Direct}
)

var worldOptions = Options{
	Shared: worldShared, EphemeralLow: 5000, EphemeralHigh: 5002, Slots: 32, MaxTimeWait: 50, Unowned: table.Server,
}

func newModel() *model {
	return &model{leases: make(map[Instance]*modelLease), kept: make(map[endpoint]Instance), mode: make(map[endpoint]table.Mode)}
}

// owner is the instance that has an endpoint, 0 if none has.
func (m *model) owner(e endpoint) Instance {
	for _, s := range m.socks {
		if slices.Contains(s.eps, e) {
			return s.inst
		}
	}
	return m.kept[e]
}

// settle forgets the modes of what nobody owns any more.
func (m *model) settle() {
	for e := range m.mode {
		if m.owner(e) == 0 {
			delete(m.mode, e)
		}
	}
}

func (m *model) dedicatedTo(a netip.Addr) Instance {
	for id, l := range m.leases {
		if _, ok := l.modes[a]; ok {
			return id
		}
	}
	return 0
}

func (m *model) join(id Instance, l Lease) unix.Errno {
	had := m.leases[id]
	if had != nil && !had.absent {
		return unix.EEXIST
	}
	modes := make(map[netip.Addr]table.Mode)
	for _, a := range l.Addrs {
		if slices.Contains(worldShared, a) {
			continue
		}
		switch owner := m.dedicatedTo(a); owner {
		case 0:
			modes[a] = l.Mode
		case id:
			modes[a] = had.modes[a]
		default:
			return unix.EADDRINUSE
		}
	}
	m.leases[id] = &modelLease{Lease: l, modes: modes}
	m.unkeep(func(e endpoint, owner Instance) bool { return owner == id && !slices.Contains(l.Addrs, e.addr) })
	return 0
}

func (m *model) unkeep(match func(endpoint, Instance) bool) {
	for e, owner := range m.kept {
		if match(e, owner) {
			delete(m.kept, e)
		}
	}
	m.settle()
}

func (m *model) leave(id Instance) {
	delete(m.leases, id)
	m.socks = slices.DeleteFunc(m.socks, func(s *modelSocket) bool { return s.inst == id })
	m.unkeep(func(_ endpoint, owner Instance) bool { return owner == id })
}

// restart forgets what a table does not tell.
func (m *model) restart() {
	for _, s := range m.socks {
		for _, e := range s.eps {
			if slices.Contains(worldShared, e.addr) {
				m.kept[e] = s.inst
			}
		}
	}
	m.socks, m.now = nil, 0
	for id, l := range m.leases {
		l.absent = true
		owns := len(l.modes) > 0
		for _, owner := range m.kept {
			owns = owns || owner == id
		}
		if !owns {
			delete(m.leases, id)
		}
	}
	m.settle()
}

func (m *model) joined(id Instance) *modelLease {
	if l := m.leases[id]; l != nil && !l.absent {
		return l
	}
	return nil
}

func (m *model) find(id Instance, sock Socket) *modelSocket {
	for _, s := range m.socks {
		if s.inst == id && s.id == sock && !s.waits {
			return s
		}
	}
	return nil
}

// covers lists the endpoints of a request.
func (l *modelLease) covers(r Request) []endpoint {
	var eps []endpoint
	for _, a := range l.Addrs {
		matches := a == r.Addr.Unmap()
		if r.Addr.Unmap().IsUnspecified() {
			matches = a.Is4() && r.Addr.Is4() || a.Is4() && !r.Options.V6Only || a.Is6() && r.Addr == netip.IPv6Unspecified()
		}
		if matches {
			eps = append(eps, endpoint{r.Proto, a, r.Port})
		}
	}
	return eps
}

// bind returns the errno, or the socket to add when the port is known.
func (m *model) bind(id Instance, r Request) (*modelSocket, unix.Errno) {
	l := m.joined(id)
	switch {
	case l == nil:
		return nil, unix.ESRCH
	case r.Purpose != ForBind && r.Port != 0 || m.find(id, r.Socket) != nil:
		return nil, unix.EINVAL
	case r.Port != 0 && r.Port < l.MinPort:
		return nil, unix.EACCES
	case m.sockets(id) >= l.MaxSockets:
		return nil, unix.ENOBUFS
	}
	s := &modelSocket{inst: id, id: r.Socket, eps: l.covers(r), opt: r.Options}
	if len(s.eps) == 0 {
		return nil, unix.EADDRNOTAVAIL
	}
	if r.Port == 0 {
		if len(m.free(s.eps)) == 0 || !m.shares(l, id, s.eps, 0) {
			return nil, [...]unix.Errno{unix.EADDRINUSE, unix.EADDRNOTAVAIL, unix.EAGAIN}[r.Purpose]
		}
	} else if m.conflicts(s) {
		return nil, unix.EADDRINUSE
	}
	if !l.Returning && m.ports(id)+m.fresh(s.eps, r.Port) > l.MaxPorts {
		return nil, unix.ENOBUFS
	}
	if r.Port != 0 && !m.shares(l, id, s.eps, r.Port) {
		return nil, unix.ENOBUFS
	}
	return s, 0
}

// shares tells whether an instance may have a port more, 0: any ephemeral one. Only the
// ephemeral ones are so few that it matters.
func (m *model) shares(l *modelLease, id Instance, eps []endpoint, port uint16) bool {
	low, high := worldOptions.EphemeralLow, worldOptions.EphemeralHigh
	if m.share == 0 || l.Returning || port != 0 && (port < low || port > high) {
		return true
	}
	for _, e := range eps {
		if e.port = port; !slices.Contains(worldShared, e.addr) || m.owner(e) != 0 {
			continue
		}
		has, free := 0, 0
		for e.port = low; e.port <= high; e.port++ {
			switch m.owner(e) {
			case id:
				has++
			case 0:
				free++
			}
		}
		if has >= m.share*free {
			return false
		}
	}
	return true
}

// free lists the ephemeral ports that are nobody's at all of the endpoints' addresses.
func (m *model) free(eps []endpoint) []uint16 {
	var free []uint16
	for p := worldOptions.EphemeralLow; p <= worldOptions.EphemeralHigh; p++ {
		if m.fresh(eps, p) == len(eps) {
			free = append(free, p)
		}
	}
	return free
}

// fresh counts the endpoints that, with the port, are nobody's. A port that
// is still to be chosen, 0, is.
func (m *model) fresh(eps []endpoint, port uint16) (n int) {
	for _, e := range eps {
		e.port = port
		if m.owner(e) == 0 {
			n++
		}
	}
	return n
}

// ports counts what an instance owns.
func (m *model) ports(id Instance) (n int) {
	for e := range m.mode {
		if m.owner(e) == id {
			n++
		}
	}
	for _, a := range worldDedicated {
		for _, proto := range worldProtos {
			for _, p := range worldPorts {
				if m.owner(endpoint{proto, a, p}) == id {
					n++
				}
			}
		}
	}
	return n
}

func (m *model) sockets(id Instance) (n int) {
	for _, s := range m.socks {
		if s.inst == id {
			n++
		}
	}
	return n
}

// conflicts is inet_csk_bind_conflict, in its own words.
func (m *model) conflicts(sk *modelSocket) bool {
	for _, e := range sk.eps {
		if owner := m.owner(e); owner != 0 && owner != sk.inst {
			return true
		}
	}
	for _, sk2 := range m.socks {
		overlap := slices.ContainsFunc(sk2.eps, func(e endpoint) bool { return slices.Contains(sk.eps, e) })
		if sk2 == sk || !overlap || sk.opt.ReuseAddr && sk2.opt.ReuseAddr && !sk2.listens {
			continue
		}
		if !sk.opt.ReusePort || !sk2.opt.ReusePort || !sk2.waits && sk.opt.UID != sk2.opt.UID {
			return true
		}
	}
	return false
}

// add is what a successful bind does.
func (m *model) add(s *modelSocket, port uint16) {
	for i := range s.eps {
		e := &s.eps[i]
		e.port = port
		if m.owner(*e) == 0 && slices.Contains(worldShared, e.addr) {
			m.mode[*e] = m.leases[s.inst].Mode
		}
		delete(m.kept, *e)
	}
	m.socks = append(m.socks, s)
}

func (m *model) listen(id Instance, sock Socket, on bool) unix.Errno {
	s := m.find(id, sock)
	switch {
	case m.joined(id) == nil:
		return unix.ESRCH
	case s == nil || s.eps[0].proto != table.TCP:
		return unix.EINVAL
	case on && m.conflicts(s):
		return unix.EADDRINUSE
	}
	s.listens = on
	return 0
}

func (m *model) close(id Instance, sock Socket, wait time.Duration) unix.Errno {
	s := m.find(id, sock)
	switch {
	case m.joined(id) == nil:
		return unix.ESRCH
	case s == nil:
		return unix.EINVAL
	}
	s.listens, s.waits = false, true
	s.until = m.now + min(wait, worldOptions.MaxTimeWait)
	if s.eps[0].proto == table.UDP {
		s.until = m.now
	}
	m.expire()
	return 0
}

func (m *model) expire() {
	m.socks = slices.DeleteFunc(m.socks, func(s *modelSocket) bool { return s.waits && s.until <= m.now })
	m.settle()
}

// check compares the table with what the model expects everywhere.
func (m *model) check(t *rapid.T, view *table.View) {
	for _, proto := range worldProtos {
		for _, a := range worldAddrs {
			for _, p := range worldPorts {
				w := view.Lookup(table.KeyOf(a), proto, p)
				kind, owner, mode := m.expected(endpoint{proto, a, p})
				if want := table.NewWord(kind, mode, uint32(owner), w.Generation()); w != want {
					t.Fatalf("%v %v %d: %v, not %v", proto, a, p, w, want)
				}
			}
		}
	}
}

func (m *model) expected(e endpoint) (table.Kind, Instance, table.Mode) {
	if slices.Contains(worldShared, e.addr) {
		if owner := m.owner(e); owner != 0 {
			return table.Port, owner, m.mode[e]
		}
		return table.Free, 0, 0
	}
	if owner := m.dedicatedTo(e.addr); owner != 0 {
		return table.Dedicated, owner, m.leases[owner].modes[e.addr]
	}
	return table.Free, 0, 0
}

package portmap

import "slices"

// class is what decides whether a socket can share a port with another.
type class struct {
	reuseAddr, reusePort, listening, waiting bool
	uid                                      uint32
}

// sharesWith tells whether a socket may join one that has its port already.
// This is inet_csk_bind_conflict of Linux with a port given (relax), of which
// udp_lib_lport_inuse is the case without listening and waiting.
func (c class) sharesWith(other class) bool {
	if c.reuseAddr && other.reuseAddr && !other.listening {
		return true
	}
	return c.reusePort && other.reusePort && (other.waiting || c.uid == other.uid)
}

func (o SocketOptions) class() class {
	c := class{reuseAddr: o.ReuseAddr, reusePort: o.ReusePort}
	if o.ReusePort { // else the user does not matter
		c.uid = o.UID
	}
	return c
}

// maxClasses bounds the classes, in fact users with SO_REUSEPORT, that may
// bind to one port, lest an instance make the monitor search long lists.
const maxClasses = 64

// users counts the sockets of one class on a port. There are few classes, so
// a conflict is found without looking at each socket.
type users struct {
	class
	n int
}

// admits tells whether a socket of the class may join the port's users.
func (p *port) admits(c class) bool {
	return !slices.ContainsFunc(p.users, func(u users) bool { return !c.sharesWith(u.class) })
}

func (p *port) enter(c class) {
	if i := p.find(c); i >= 0 {
		p.users[i].n++
		return
	}
	p.users = append(p.users, users{c, 1})
}

func (p *port) exit(c class) {
	i := p.find(c)
	if p.users[i].n--; p.users[i].n == 0 {
		p.users = slices.Delete(p.users, i, i+1)
	}
}

// full tells whether the class would be one too many.
func (p *port) full(c class) bool { return len(p.users) >= maxClasses && p.find(c) < 0 }

func (p *port) find(c class) int {
	return slices.IndexFunc(p.users, func(u users) bool { return u.class == c })
}

// admitted tells whether the socket may share its ports with their other users.
func (s *socket) admitted() bool {
	ok := true
	for _, p := range s.ports {
		p.exit(s.class)
		ok = ok && p.admits(s.class)
		p.enter(s.class)
	}
	return ok
}

func (s *socket) become(c class) {
	for _, p := range s.ports {
		p.exit(s.class)
		p.enter(c)
	}
	s.class = c
}

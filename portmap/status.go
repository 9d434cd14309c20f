package portmap

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"junction/portmap/table"
)

// State is what an owned port is used for.
type State uint8

// The states, of which a port has the last that applies to one of its sockets.
const (
	Kept      State = iota // since a Restore, for an instance that has not bound it again
	TimeWait               // by no socket any more
	Bound                  // by a socket
	Listening              // by a listening TCP socket
)

var stateNames = [...]string{"kept", "time-wait", "bound", "listening"}

// String is the state's name.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// PortStatus describes an owned port.
type PortStatus struct {
	Proto    table.Proto
	Endpoint netip.AddrPort
	Owner    Instance
	State    State
	Mode     table.Mode // where its frames go
	Sockets  int        // those in TIME_WAIT included
}

// Ports lists the owned ports by address, protocol and number. It takes time
// and memory in proportion to their number.
func (m *Map) Ports() []PortStatus {
	var all []PortStatus
	for _, inst := range m.instances {
		for _, p := range inst.ports {
			all = append(all, m.status(p))
		}
	}
	slices.SortFunc(all, func(a, b PortStatus) int {
		return cmp.Or(a.Endpoint.Addr().Compare(b.Endpoint.Addr()),
			cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Endpoint.Port(), b.Endpoint.Port()))
	})
	return all
}

func (m *Map) status(p *port) PortStatus {
	s := PortStatus{
		Proto: p.proto, Endpoint: netip.AddrPortFrom(p.space.addr, p.number), Owner: p.owner.id, Mode: p.mode,
	}
	if p.space.owner != nil {
		s.Mode = m.mirror.Slots[p.space.slot].Word.Mode()
	}
	for _, u := range p.users {
		s.Sockets += u.n
		s.State = max(s.State, u.state())
	}
	return s
}

func (c class) state() State {
	switch {
	case c.listening:
		return Listening
	case c.waiting:
		return TimeWait
	}
	return Bound
}

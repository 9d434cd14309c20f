package portmap

import (
	"errors"
	"fmt"
	"slices"

	"junction/portmap/table"
)

// ErrSnapshot is returned, wrapped, by Restore for a table that no Map with
// these Options has written.
var ErrSnapshot = errors.New("the portmap's table does not fit")

// Restore makes a Map that continues what a table says, whose monitor has
// ended. Options.Shared must be those of the table; its geometry counts, not
// Options.Slots and HashSeed. Every owner is Absent: Join, Bind and Settle bring
// one back, Leave frees what it had. What a table does not tell, sockets, is lost
// until then: the ports are kept. The Map takes s over. New instances must not
// get the numbers of those that are Absent. Errors: EINVAL, ErrSnapshot.
func Restore(o Options, s table.Snapshot) (*Map, error) {
	o.Slots, o.HashSeed = s.Geometry.Slots, s.HashSeed
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := checkSnapshot(o, s); err != nil {
		return nil, err
	}
	m := newMap(o, s)
	for i, slot := range s.Slots {
		if err := m.restoreAddr(uint32(i), slot); err != nil {
			return nil, err
		}
	}
	// What is missing, the earlier monitor died before it wrote it.
	if err := m.enterShared(); err != nil {
		return nil, err
	}
	return m, m.restorePorts()
}

func checkSnapshot(o Options, s table.Snapshot) error {
	if g := o.geometry(); g != s.Geometry || len(s.Slots) != int(g.Slots) || len(s.Ports) != int(g.Ports()) {
		return fmt.Errorf("%w: it is for %d shared addresses, not %d", ErrSnapshot, s.Shared, len(o.Shared))
	}
	return nil
}

func (m *Map) restoreAddr(i uint32, s table.Slot) error {
	sp := &space{addr: s.Key.Addr(), slot: i}
	switch k := s.Word.Kind(); {
	case !s.Word.Valid() || k == table.Port:
		return fmt.Errorf("%w: slot %d is %v", ErrSnapshot, i, s.Word)
	case k == table.Free:
		return nil
	case m.spaces[sp.addr] != nil || !m.reachable(i, s.Key),
		k == table.Dedicated && slices.Contains(m.opt.Shared, sp.addr):
		return fmt.Errorf("%w: slot %d has address %v, which belongs elsewhere", ErrSnapshot, i, sp.addr)
	case k == table.Shared:
		sp.index = int(s.Word.Owner())
		if sp.index >= len(m.opt.Shared) || m.opt.Shared[sp.index] != sp.addr {
			return fmt.Errorf("%w: its shared address number %d is %v", ErrSnapshot, sp.index, sp.addr)
		}
	case k == table.Dedicated:
		sp.owner = m.awaited(s.Word)
		sp.owner.addrs = append(sp.owner.addrs, sp)
	}
	m.spaces[sp.addr] = sp
	return nil
}

// reachable tells whether a search for k looks at slot i.
func (m *Map) reachable(i uint32, k table.Key) bool {
	return (i-m.mirror.Probe(k, 0))&(m.mirror.Geometry.Slots-1) < table.ProbeWindow
}

// awaited is the owner of a restored entry.
func (m *Map) awaited(w table.Word) *instance {
	id := Instance(w.Owner())
	inst := m.instances[id]
	if inst == nil {
		inst = &instance{id: id, absent: true}
		m.instances[id] = inst
	}
	return inst
}

func (m *Map) restorePorts() error {
	for _, a := range m.opt.Shared {
		sp := m.spaces[a]
		for i := range table.PortsPerAddr {
			proto, number := table.Proto(i>>16), uint16(i)
			w := m.mirror.Ports[table.PortIndex(uint32(sp.index), proto, number)]
			switch k := w.Kind(); {
			case !w.Valid() || k != table.Free && k != table.Port || k == table.Port && number == 0:
				return fmt.Errorf("%w: %v port %d of %v is %v", ErrSnapshot, proto, number, a, w)
			case k == table.Port:
				m.acquire(sp, proto, number, m.awaited(w)).mode = w.Mode()
			}
		}
	}
	return nil
}

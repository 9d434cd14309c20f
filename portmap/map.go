package portmap

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"junction/portmap/table"
)

// Map is the state of all ports. Its methods are for one goroutine at a time.
type Map struct {
	opt       Options
	rng       *rand.Rand
	now       time.Duration
	seq       uint64 // of the last wait
	spaces    map[netip.Addr]*space
	instances map[Instance]*instance
	waits     waitQueue
	taken     map[pool]int   // owned ports
	mirror    table.Snapshot // what the table holds once Changes are applied
	changes   []table.Change
}

// New makes a Map in which no port is owned. Its first Changes fill an empty table.
func New(o Options) (*Map, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	m := newMap(o, table.NewSnapshot(o.geometry()))
	return m, m.enterShared()
}

// enterShared writes the shared addresses that are not in the table, or not as
// the Options have them.
func (m *Map) enterShared() error {
	for i, a := range m.opt.Shared {
		s := m.spaces[a]
		if s == nil {
			slot, ok := m.freeSlot(a)
			if !ok {
				return failure(unix.ENOSPC, "no place for shared address %v in the table", a)
			}
			s = &space{addr: a, slot: slot, index: i}
			m.spaces[a] = s
		}
		if w := m.mirror.Slots[s.slot].Word; w.Kind() == table.Free || w.Mode() != m.opt.Unowned {
			m.setSlot(s.slot, table.KeyOf(a), table.Shared, m.opt.Unowned, uint32(i))
		}
	}
	return nil
}

func newMap(o Options, s table.Snapshot) *Map {
	return &Map{
		opt:       o,
		rng:       rand.New(rand.NewChaCha8(o.Seed)),
		spaces:    make(map[netip.Addr]*space),
		instances: make(map[Instance]*instance),
		taken:     make(map[pool]int),
		mirror:    s,
	}
}

// Geometry is that of the table the Changes are for.
func (m *Map) Geometry() table.Geometry { return m.mirror.Geometry }

// Changes returns the stores to the table, in order, that the calls since the
// last Changes brought about. The slice is valid until the next call of a method.
func (m *Map) Changes() []table.Change {
	c := m.changes
	m.changes = m.changes[:0]
	return c
}

// instance is one that has joined, or is awaited after a Restore.
type instance struct {
	id        Instance
	lease     Lease
	absent    bool
	returning bool
	addrs     []*space
	sockets   map[Socket]*socket
	waiting   int     // sockets in TIME_WAIT, which are not in sockets
	ports     []*port // on all addresses
	held      map[pool]int
}

// get finds an instance that has joined.
func (m *Map) get(id Instance) (*instance, error) {
	i := m.instances[id]
	if i == nil || i.absent {
		return nil, failure(unix.ESRCH, "instance %d has not joined", id)
	}
	return i, nil
}

// space is an address.
type space struct {
	addr  netip.Addr
	slot  uint32
	index int       // of a shared address, else 0
	owner *instance // of a dedicated address
	ports [table.Protos]portSet
}

// port is an owned port of one address.
type port struct {
	space  *space
	proto  table.Proto
	number uint16
	owner  *instance
	at     int // position in owner.ports
	mode   table.Mode
	users  []users // none: kept by Restore until its owner binds it again or settles
}

// acquire makes inst the owner of a port that nobody owns.
func (m *Map) acquire(s *space, proto table.Proto, number uint16, inst *instance) *port {
	p := &port{space: s, proto: proto, number: number, owner: inst, at: len(inst.ports), mode: inst.lease.Mode}
	inst.ports = append(inst.ports, p)
	m.count(p, 1)
	s.ports[proto].add(p)
	return p
}

// release gives a port up that has no users any more.
func (m *Map) release(p *port) {
	m.count(p, -1)
	last := len(p.owner.ports) - 1
	moved := p.owner.ports[last]
	p.owner.ports[p.at], moved.at = moved, p.at
	p.owner.ports[last] = nil
	p.owner.ports = p.owner.ports[:last]
	p.space.ports[p.proto].remove(p)
	m.publish(p, table.Free)
}

// publish writes the port's entry. A dedicated address's ports have none.
func (m *Map) publish(p *port, kind table.Kind) {
	if p.space.owner != nil {
		return
	}
	i := table.PortIndex(uint32(p.space.index), p.proto, p.number)
	w := m.mirror.Ports[i].Next(kind, 0, 0)
	if kind != table.Free {
		w = m.mirror.Ports[i].Next(kind, p.mode, uint32(p.owner.id))
	}
	m.mirror.Ports[i] = w
	m.changes = append(m.changes, table.Change{Index: i, Word: w})
}

// setSlot writes an address's entry.
func (m *Map) setSlot(slot uint32, key table.Key, kind table.Kind, mode table.Mode, owner uint32) {
	s := &m.mirror.Slots[slot]
	s.Key, s.Word = key, s.Word.Next(kind, mode, owner)
	m.changes = append(m.changes, table.Change{Index: slot, Slot: true, Key: key, Word: s.Word})
}

// freeSlot finds a place for an address.
func (m *Map) freeSlot(a netip.Addr) (uint32, bool) {
	for i := range uint32(table.ProbeWindow) {
		slot := m.mirror.Probe(table.KeyOf(a), i)
		if m.mirror.Slots[slot].Word.Kind() == table.Free {
			return slot, true
		}
	}
	return 0, false
}

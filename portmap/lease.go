package portmap

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"junction/portmap/table"
)

// Join begins an instance's lease, or takes it up again after a Restore: then
// the modes of what the instance had stay as they are, and what it had at
// addresses that are not in the lease is freed. Errors: EINVAL, EEXIST (the
// number is in use), EADDRINUSE (another's dedicated address), ENOSPC (too many
// addresses).
func (m *Map) Join(id Instance, l Lease) error {
	if err := m.join(id, l); err != nil {
		return fmt.Errorf("instance %d joins: %w", id, err)
	}
	return nil
}

func (m *Map) join(id Instance, l Lease) error {
	if id == 0 || id > table.MaxOwner {
		return invalid("the number is not 1 to %d", table.MaxOwner)
	}
	if err := l.check(); err != nil {
		return err
	}
	inst := m.instances[id]
	if inst != nil && !inst.absent {
		return unix.EEXIST
	}
	had := inst
	if had == nil {
		inst = &instance{id: id}
	}
	addrs, err := m.claim(inst, l)
	if err != nil {
		return err
	}
	if had != nil {
		m.trim(inst, addrs)
	}
	m.instances[id] = inst
	inst.lease, inst.addrs, inst.absent, inst.returning = l.withDefaults(), addrs, false, l.Returning
	inst.sockets = make(map[Socket]*socket)
	return nil
}

// claim finds the lease's addresses and makes those that are not in the table
// inst's own, all or none.
func (m *Map) claim(inst *instance, l Lease) ([]*space, error) {
	for _, a := range l.Addrs {
		if s := m.spaces[a]; s != nil && s.owner != nil && s.owner != inst {
			return nil, failure(unix.EADDRINUSE, "address %v is dedicated to instance %d", a, s.owner.id)
		}
	}
	var addrs, fresh []*space
	for _, a := range l.Addrs {
		s := m.spaces[a]
		if s == nil {
			if s = m.dedicate(inst, a, l.Mode); s == nil {
				m.give(fresh)
				return nil, failure(unix.ENOSPC, "no place for address %v beside the table's %d", a, len(m.spaces))
			}
			fresh = append(fresh, s)
		}
		addrs = append(addrs, s)
	}
	return addrs, nil
}

// dedicate enters an address that is not in the table; nil if there is no place.
func (m *Map) dedicate(inst *instance, a netip.Addr, mode table.Mode) *space {
	slot, ok := m.freeSlot(a)
	if !ok || len(m.spaces) >= len(m.mirror.Slots)/slotsPerAddress {
		return nil
	}
	s := &space{addr: a, slot: slot, owner: inst}
	m.spaces[a] = s
	m.setSlot(slot, table.KeyOf(a), table.Dedicated, mode, uint32(inst.id))
	return s
}

// give takes those of the addresses that are dedicated out of the table.
func (m *Map) give(addrs []*space) {
	for _, s := range addrs {
		if s.owner != nil {
			delete(m.spaces, s.addr)
			m.setSlot(s.slot, table.KeyOf(s.addr), table.Free, table.Drop, 0)
		}
	}
}

// trim frees what a restored instance has at other addresses than these.
func (m *Map) trim(inst *instance, addrs []*space) {
	m.releaseIf(inst, func(p *port) bool { return !slices.Contains(addrs, p.space) })
	m.give(slices.DeleteFunc(inst.addrs, func(s *space) bool { return slices.Contains(addrs, s) }))
}

// releaseIf frees those of inst's ports that match. From the end, so that
// release moves no port that is still to be looked at.
func (m *Map) releaseIf(inst *instance, match func(*port) bool) {
	for i := len(inst.ports) - 1; i >= 0; i-- {
		if match(inst.ports[i]) {
			m.release(inst.ports[i])
		}
	}
}

// Settle ends the return of an instance after a Restore: the ports that it has
// not bound again are free. Errors: ESRCH (it has not joined).
func (m *Map) Settle(id Instance) error {
	inst, err := m.get(id)
	if err != nil {
		return err
	}
	inst.returning = false
	m.releaseIf(inst, func(p *port) bool { return len(p.users) == 0 })
	return nil
}

// Absent returns, in order, the instances that a Restore found in the table and
// that have not joined yet.
func (m *Map) Absent() []Instance {
	var ids []Instance
	for id, inst := range m.instances {
		if inst.absent {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Leave ends an instance's lease, joined or absent. All it had is free: ports,
// those in TIME_WAIT too, and dedicated addresses. Unknown numbers are ignored.
func (m *Map) Leave(id Instance) {
	inst := m.instances[id]
	if inst == nil {
		return
	}
	delete(m.instances, id)
	m.waits.drop(inst)
	m.releaseIf(inst, func(*port) bool { return true })
	m.give(inst.addrs)
}

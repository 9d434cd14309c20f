package portmap

import (
	"errors"

	"golang.org/x/sys/unix"

	"junction/portmap/table"
)

// DefaultShare is a Share for Options: alone, an instance gets two thirds of the
// ports, and of n that want all, each gets 2 of 2n+1 parts.
const DefaultShare = 2

// ErrShare is returned, wrapped with an errno, by a Bind that Options.Share refuses.
var ErrShare = errors.New("the instance has its share of the ports")

// pool is the ports that are shared out together: of one shared address and
// protocol, the ephemeral ones or the others.
type pool struct {
	space     *space
	proto     table.Proto
	ephemeral bool
}

func (m *Map) poolOf(s *space, proto table.Proto, number uint16) pool {
	return pool{s, proto, m.opt.EphemeralLow <= number && number <= m.opt.EphemeralHigh}
}

// count counts a port that has found its owner (1) or lost it (-1).
func (m *Map) count(p *port, n int) {
	if p.space.owner != nil {
		return
	}
	l := m.poolOf(p.space, p.proto, p.number)
	if p.owner.held == nil {
		p.owner.held = make(map[pool]int)
	}
	m.taken[l] += n
	if p.owner.held[l] += n; p.owner.held[l] == 0 {
		delete(p.owner.held, l)
	}
}

// shares returns ErrShare if another port of the pool is more than inst's share.
// What is left is free for others: the more is free, the more one may have.
func (m *Map) shares(inst *instance, l pool, errno unix.Errno) error {
	if m.opt.Share == 0 || l.space.owner != nil || inst.returning {
		return nil
	}
	size := int(m.opt.EphemeralHigh-m.opt.EphemeralLow) + 1
	kind := "ephemeral"
	if !l.ephemeral {
		size, kind = 1<<16-1-size, "other"
	}
	has, free := inst.held[l], size-m.taken[l]
	if has < m.opt.Share*free {
		return nil
	}
	return failure(errno, "%w: of %v's %s %v ports it has %d, and %d are left for others", ErrShare, l.space.addr, kind, l.proto, has, free)
}

package netserver

import (
	"encoding/binary"
	"maps"
	"sync/atomic"
	"time"

	"junction/portmap/table"
)

// Multicast goes to the instances that have joined its group, which the server
// knows from their own reports, as a switch does that snoops (RFC 4541). An
// instance is one host behind one port, and no report is lost on the way, so
// what it has joined follows from its reports alone, without time-outs. A
// server that is new to an instance asks for them (RFC 3376, RFC 3810) and
// sends it everything until they have come.

const (
	// learnTime is how long reports may take to come after the question:
	// queryTime, which it allows, and more for a busy machine.
	learnTime = 3 * queryTime
	queryTime = time.Second
	// maxGroups is how many groups are remembered for an instance. One that
	// joins more gets all multicast.
	maxGroups = 256
)

// groups are those that an instance has joined. One goroutine changes them, any
// may look.
type groups struct {
	joined atomic.Pointer[map[table.Key]struct{}] // never changed once it is here
	known  atomic.Int64                           // from when on joined is all there is; 0: not yet
	all    atomic.Bool
}

// wants tells whether multicast for a group is to be delivered at a time.
func (g *groups) wants(group table.Key, now int64) bool {
	known := g.known.Load()
	if g.all.Load() || known == 0 || now < known {
		return true
	}
	joined := g.joined.Load()
	if joined == nil {
		return false
	}
	_, ok := (*joined)[group]
	return ok
}

// change joins or leaves a group.
func (g *groups) change(group table.Key, join bool) {
	var next map[table.Key]struct{}
	if was := g.joined.Load(); was != nil {
		if _, is := (*was)[group]; is == join {
			return
		}
		next = maps.Clone(*was)
	} else {
		next = make(map[table.Key]struct{})
	}
	switch {
	case !join:
		delete(next, group)
	case len(next) >= maxGroups:
		g.all.Store(true)
		return
	default:
		next[group] = struct{}{}
	}
	g.joined.Store(&next)
}

// hear takes a report in. now is the time, asked when the question was.
func (g *groups) hear(p *packet, b []byte, asked int64) {
	if !p.reported(b, g.change) {
		g.all.Store(true) // it says more than the server looks at
	}
	g.known.CompareAndSwap(0, asked+int64(learnTime))
}

// everybody tells whether multicast is for all hosts of the link, joined or not:
// what hosts send no reports for, or switches pass on all the same (RFC 4541,
// 2.1.2 and 3), and what is no multicast of IP.
func (h *ipHeader) everybody() bool {
	a := h.dst.Addr()
	if !a.IsMulticast() {
		return true // broadcast
	}
	if h.v6 {
		return a.As16() == allNodes
	}
	b := a.As4()
	return b[0] == 224 && b[1] == 0 && b[2] == 0
}

// Types of IGMP (RFC 1112, RFC 2236, RFC 3376).
const (
	igmpQuery    = 0x11
	igmpReportV1 = 0x12
	igmpReportV2 = 0x16
	igmpLeave    = 0x17
	igmpReportV3 = 0x22

	icmp6Report = 131
	icmp6Done   = 132
)

// reports tells whether p tells routers, and only these, what a host has joined.
func (p *packet) reports() bool {
	h := &p.ip
	if h.l4 == 0 {
		return false
	}
	if h.v6 {
		return h.proto == protoICMPv6 && (p.icmp.kind == icmp6Report || p.icmp.kind == icmp6Done || p.icmp.kind == icmp6MLDv2)
	}
	return h.proto == protoIGMP && p.igmp != 0 && p.igmp != igmpQuery
}

// reported calls change for what the report says, of which b has the beginning.
// It returns false if there is more.
func (p *packet) reported(b []byte, change func(group table.Key, join bool)) bool {
	h := &p.ip
	whole := h.end <= len(b)
	x := b[h.l4:min(h.end, len(b))]
	size, kind := 4, x[0]
	if h.v6 {
		size = 16
	}
	switch {
	case kind == igmpReportV3 && !h.v6, kind == icmp6MLDv2 && h.v6:
		return records(x, size, change) && whole
	case h.v6 && len(x) >= 8+size:
		change(table.Key16((*[16]byte)(x[8:])), kind == icmp6Report)
	case !h.v6 && len(x) >= 4+size:
		change(table.Key4((*[4]byte)(x[4:])), kind != igmpLeave)
	}
	return whole
}

// records reads the records of an IGMPv3 or MLDv2 report, whose addresses have
// size bytes. It returns false if they are not all there.
func records(x []byte, size int, change func(group table.Key, join bool)) bool {
	const (
		fixed     = 8
		isInclude = 1
		toInclude = 3
		allow     = 5
		block     = 6
	)
	n := int(binary.BigEndian.Uint16(x[6:]))
	x = x[fixed:]
	for range n {
		if len(x) < 4+size {
			return false
		}
		sources := int(binary.BigEndian.Uint16(x[2:]))
		var group table.Key
		if size == 4 {
			group = table.Key4((*[4]byte)(x[4:]))
		} else {
			group = table.Key16((*[16]byte)(x[4:]))
		}
		switch x[0] {
		case isInclude, toInclude:
			change(group, sources > 0)
		case block: // no news: there are others, or this is followed by a leave
		case allow:
			if sources > 0 {
				change(group, true)
			}
		default: // excludes some, or none
			change(group, true)
		}
		length := 4 + size + sources*size + int(x[1])*4
		if len(x) < length {
			return false
		}
		x = x[length:]
	}
	return true
}

// query4 writes a general query for IGMPv3 (RFC 3376, 4.1) from nobody.
func (f *forwarder) query4(buf []byte) []byte {
	a := append(buf[:0], 1, 0, 0x5e, 0, 0, 1)
	a = append(append(a, f.mac[:]...), 8, 0)
	const alert, length = 0x94, 36 // with the option "router alert"
	ip := len(a)
	a = append(a, 0x46, 0xc0, 0, length, 0, 0, 0, 0, 1, protoIGMP, 0, 0, 0, 0, 0, 0, 224, 0, 0, 1, alert, 4, 0, 0)
	binary.BigEndian.PutUint16(a[ip+10:], ^fold(sum(0, a[ip:])))
	l4 := len(a)
	a = append(a, igmpQuery, byte(queryTime/(100*time.Millisecond)), 0, 0, 0, 0, 0, 0, 2, 125, 0, 0)
	binary.BigEndian.PutUint16(a[l4+2:], ^fold(sum(0, a[l4:])))
	return a
}

// query6 writes a general query for MLDv2 (RFC 3810, 5.1) from the link-local
// address that the uplink's MAC address makes (RFC 4291, appendix A).
func (f *forwarder) query6(buf []byte) []byte {
	a := append(buf[:0], 0x33, 0x33, 0, 0, 0, 1)
	a = append(append(a, f.mac[:]...), 0x86, 0xdd)
	m := f.mac
	src := [16]byte{0xfe, 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]}
	const options, query, multicastQuery = 8, 28, 130
	a = appendIPv6(a, options+query, extHopByHop, 1, src[:], allNodes[:])
	a = append(a, protoICMPv6, 0, 5, 2, 0, 0, 1, 0) // router alert, padding
	l4 := len(a)
	a = append(a, multicastQuery, 0, 0, 0, byte(queryTime/time.Millisecond>>8), byte(queryTime/time.Millisecond&0xff), 0, 0)
	a = append(a, make([]byte, 16)...)
	a = append(a, 2, 125, 0, 0)
	s := sum(sum(0, a[l4:]), src[:])
	s = sum(s, allNodes[:]) + query + protoICMPv6
	binary.BigEndian.PutUint16(a[l4+2:], ^fold(s))
	return a
}

// ask asks the instance what it has joined.
func (w *worker) ask() {
	w.begin()
	w.asked = w.now
	w.hdr = [len(w.hdr)]byte{}
	for _, q := range [][]byte{w.s.fwd.query4(w.scratch[:]), w.s.fwd.query6(make([]byte, 0, maxAnswer))} {
		w.batch.Made++
		w.put(&w.port.out, append(w.parts[:0], q), false)
	}
	if w.batch.Out < 2 { // it cannot be asked: its ring is full
		w.port.groups.all.Store(true)
	}
	w.end(false)
}

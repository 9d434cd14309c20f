package netserver

import (
	"hash/maphash"
	"sync"
	"time"

	"junction/portmap/table"
)

// flow identifies packets that belong together: the fragments of a datagram, an
// echo request and what answers it.
type flow struct {
	src, dst table.Key
	proto    uint8
	v6       bool
	id       uint32
}

// datagram identifies the datagram that a fragment is of (RFC 791, RFC 8200).
// IPv6 leaves the protocol out, which further fragments do not repeat reliably.
func (h *ipHeader) datagram() flow {
	k := flow{src: h.src, dst: h.dst, v6: h.v6, id: h.fragID}
	if !h.v6 {
		k.proto = h.proto
	}
	return k
}

// echoFlow identifies the echo requests with an identifier from ours to peer.
func echoFlow(peer, ours table.Key, ident uint16) flow {
	return flow{src: peer, dst: ours, id: uint32(ident)}
}

// Sizes of flows.
const (
	flowWays = 8 // slots that a flow may be in
	flowSets = 512
	// flowLife is how long a flow is remembered: longer than reassembly takes
	// (RFC 8200: 60 s at most; Linux gives up after 30).
	flowLife = 30 * time.Second
)

// account is who has brought a flow about, and whose part of the slots it takes.
type account uint64

// fromWire is the account of what the wire sends to an instance, or to the server:
// nobody there is to be told from another, so each receiver has a part.
func fromWire(to uint32) account { return 1<<32 | account(to) }

// fromInstance is that of an instance.
func fromInstance(id uint32) account { return account(id) }

// flows remembers, for a bounded number of flows, whose they are. A set of slots that
// is full loses the oldest flow of the account that has the most of them: who notes
// many displaces its own. Of n accounts, up to flowWays, each keeps the last
// flowWays/n flows of its own in a set, whatever the others note. The hash is secret,
// so that nobody chooses the set.
type flows struct {
	once sync.Once
	mu   sync.Mutex
	seed maphash.Seed
	// +checklocks:mu
	sets []flowSet
}

type flowSet [flowWays]flowSlot

type flowSlot struct {
	key   flow
	by    account
	owner uint32
	until int64 // 0: empty
}

func (t *flows) init() {
	t.once.Do(func() {
		t.seed = maphash.MakeSeed()
		t.sets = make([]flowSet, flowSets)
	})
}

// index tells which set a flow is in.
func (t *flows) index(k flow) uint64 { return maphash.Comparable(t.seed, k) % flowSets }

// note remembers that k, which by has brought about, is owner's. now is in nanoseconds
// of any clock.
func (t *flows) note(k flow, by account, owner uint32, now int64) {
	t.init()
	i := t.index(k)
	t.mu.Lock()
	defer t.mu.Unlock()
	*t.sets[i].place(k, by, now) = flowSlot{k, by, owner, now + int64(flowLife)}
}

// find returns whose k is.
func (t *flows) find(k flow, now int64) (owner uint32, ok bool) {
	t.init()
	i := t.index(k)
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sets[i].has(k)
	if s == nil || s.until <= now {
		return 0, false
	}
	return s.owner, true
}

// has returns the slot that k is in, or nil.
func (s *flowSet) has(k flow) *flowSlot {
	for i := range s {
		if s[i].key == k {
			return &s[i]
		}
	}
	return nil
}

// place returns the slot for a flow of by's: the one that it is in, a free one, or
// the oldest of the account that would have the most.
func (s *flowSet) place(k flow, by account, now int64) *flowSlot {
	if at := s.has(k); at != nil {
		return at
	}
	var victim *flowSlot
	most := 0
	for i := range s {
		c := &s[i]
		if c.until <= now {
			return c
		}
		if n := s.part(c.by, by); n > most || n == most && c.until < victim.until {
			victim, most = c, n
		}
	}
	return victim
}

// part is how many slots of a full set an account has, or would have with one more if
// it is to get that.
func (s *flowSet) part(of, next account) (n int) {
	if of == next {
		n++
	}
	for i := range s {
		if s[i].by == of {
			n++
		}
	}
	return n
}

// limiter bounds how many refusals are sent, as Linux does for ICMP errors
// (net.ipv4.icmp_msgs_per_sec). The zero value is full.
type limiter struct {
	mu sync.Mutex
	// +checklocks:mu
	spent float64
	// +checklocks:mu
	last int64
}

const (
	refusalsPerSecond = 1000
	refusalBurst      = 1000
)

func (l *limiter) allow(now int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	passed := max(0, now-l.last)
	l.last = max(now, l.last)
	l.spent = max(0, l.spent-float64(passed)*refusalsPerSecond/1e9)
	if l.spent+1 > refusalBurst {
		return false
	}
	l.spent++
	return true
}

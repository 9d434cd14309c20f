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
	flowSlots = 4096
	// flowLife is how long a flow is remembered: longer than reassembly takes
	// (RFC 8200: 60 s at most; Linux gives up after 30).
	flowLife = 30 * time.Second
)

// flows remembers, for a bounded number of flows, whose they are. Of two
// that fall on the same slot the newer one stays: sequence numbers of
// datagrams make that as good as the oldest going first. The hash is secret, so
// that nobody chooses whom to displace.
type flows struct {
	once sync.Once
	mu   sync.Mutex
	seed maphash.Seed
	// +checklocks:mu
	slots []flowSlot
}

type flowSlot struct {
	key   flow
	owner uint32
	until int64 // 0: empty
}

func (t *flows) init() {
	t.once.Do(func() {
		t.seed = maphash.MakeSeed()
		t.slots = make([]flowSlot, flowSlots)
	})
}

func (t *flows) slot(k flow) *flowSlot { return &t.slots[maphash.Comparable(t.seed, k)%flowSlots] }

// note remembers that k is owner's. now is in nanoseconds of any clock.
func (t *flows) note(k flow, owner uint32, now int64) {
	t.init()
	t.mu.Lock()
	defer t.mu.Unlock()
	*t.slot(k) = flowSlot{k, owner, now + int64(flowLife)}
}

// find returns whose k is.
func (t *flows) find(k flow, now int64) (owner uint32, ok bool) {
	t.init()
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.slot(k)
	if s.key != k || s.until <= now {
		return 0, false
	}
	return s.owner, true
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

package modeswitch

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// A probe is a frame that is sent through a new path before anything depends on
// it: an Ethernet header of the local experimental type 1 (IEEE 802, 9.2.3) and
// eight bytes that tell it from others.
const (
	probeType   tcpip.NetworkProtocolNumber = 0x88b5
	nonceLen                                = 8
	maxProbes                               = 16
	minEthLen                               = 60
	ethernetLen                             = header.EthernetMinimumSize
)

// Probe makes a probe frame to an instance's MAC address.
func Probe(mac [6]byte, nonce uint64) []byte {
	b := make([]byte, minEthLen)
	header.Ethernet(b).Encode(&header.EthernetFields{
		SrcAddr: tcpip.LinkAddress(mac[:]), DstAddr: tcpip.LinkAddress(mac[:]), Type: probeType,
	})
	binary.BigEndian.PutUint64(b[ethernetLen:], nonce)
	return b
}

// probes are those that have come by a path.
type probes struct {
	mu sync.Mutex
	// +checklocks:mu
	seen [maxProbes]uint64 // the last ones
	// +checklocks:mu
	n int
	// +checklocks:mu
	more chan struct{} // closed when another comes
}

// probed notes that a probe came by this path. Many that nobody waits for
// displace each other.
func (p *Path) probed(frame []byte) {
	if len(frame) < ethernetLen+nonceLen {
		return
	}
	b := &p.probes
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen[b.n%maxProbes] = binary.BigEndian.Uint64(frame[ethernetLen:])
	b.n++
	close(b.more)
	b.more = make(chan struct{})
}

// has tells whether a probe has come, and what to wait for if not.
func (b *probes) has(nonce uint64) (bool, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Contains(b.seen[:min(b.n, maxProbes)], nonce), b.more
}

// AwaitProbe waits until a probe with the given nonce has come by this path, if
// it is not among the last that have.
func (p *Path) AwaitProbe(ctx context.Context, nonce uint64) error {
	for {
		seen, more := p.probes.has(nonce)
		if seen {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("no probe frame came by the path: %w", ctx.Err())
		}
	}
}

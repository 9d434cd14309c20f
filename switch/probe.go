package modeswitch

import (
	"context"
	"encoding/binary"
	"fmt"

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

// probed notes that a probe came by this path. Of too many, the last are
// forgotten: nobody waits for as many.
func (p *Path) probed(frame []byte) {
	if len(frame) < ethernetLen+nonceLen {
		return
	}
	select {
	case p.probes <- binary.BigEndian.Uint64(frame[ethernetLen:]):
	default:
	}
}

// AwaitProbe waits until a probe with the given nonce has come by this path.
func (p *Path) AwaitProbe(ctx context.Context, nonce uint64) error {
	for {
		select {
		case got := <-p.probes:
			if got == nonce {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("no probe frame came by the new path: %w", ctx.Err())
		}
	}
}

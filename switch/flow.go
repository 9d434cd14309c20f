package modeswitch

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// flowHash returns a number that is the same for all packets of a flow, so
// that they keep to one queue and their order. TCP gives its own; for the rest
// it is made of the addresses, which fragments carry as well.
func flowHash(pkt *stack.PacketBuffer) uint32 {
	if pkt.Hash != 0 {
		return pkt.Hash
	}
	h := pkt.NetworkHeader().Slice()
	var b []byte
	switch pkt.NetworkProtocolNumber {
	case header.IPv4ProtocolNumber:
		b = h[min(len(h), 12):min(len(h), 20)]
	case header.IPv6ProtocolNumber:
		b = h[min(len(h), 8):min(len(h), 40)]
	}
	sum := uint32(2166136261) // FNV-1a over words
	for ; len(b) >= 4; b = b[4:] {
		sum = (sum ^ binary.BigEndian.Uint32(b)) * 16777619
	}
	return sum ^ sum>>16
}

package modeswitch

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// VnetHdrLen is the length of struct virtio_net_hdr without num_buffers, in bytes.
const VnetHdrLen = 10

// Values of struct virtio_net_hdr (include/uapi/linux/virtio_net.h).
const (
	vnetNeedsCsum = 1
	vnetDataValid = 2

	vnetGSONone  = 0
	vnetGSOTCPv4 = 1
	vnetGSOTCPv6 = 4
	vnetGSOECN   = 0x80
)

// vnetHdr is a decoded struct virtio_net_hdr.
type vnetHdr struct {
	flags, gsoType     uint8
	hdrLen, gsoSize    uint16
	csumStart, csumOff uint16
}

// decodeVnet splits buf into its header and the frame. ok is false when buf is
// too short for both or the header contradicts the frame.
func decodeVnet(buf []byte) (h vnetHdr, frame []byte, ok bool) {
	if len(buf) < VnetHdrLen {
		return vnetHdr{}, nil, false
	}
	le := binary.LittleEndian
	h = vnetHdr{
		flags: buf[0], gsoType: buf[1],
		hdrLen: le.Uint16(buf[2:]), gsoSize: le.Uint16(buf[4:]),
		csumStart: le.Uint16(buf[6:]), csumOff: le.Uint16(buf[8:]),
	}
	frame = buf[VnetHdrLen:]
	return h, frame, h.fits(len(frame))
}

// fits reports whether the header can belong to a frame of n bytes: its
// checksum field lies inside, and it is segmented as TCP or not at all.
func (h *vnetHdr) fits(n int) bool {
	if h.flags&vnetNeedsCsum != 0 {
		if h.csumStart < header.EthernetMinimumSize || int(h.csumStart)+int(h.csumOff)+2 > n {
			return false
		}
	}
	switch h.gsoType &^ vnetGSOECN {
	case vnetGSONone:
		return h.gsoType == vnetGSONone
	case vnetGSOTCPv4, vnetGSOTCPv6:
		return h.gsoSize != 0 && int(h.hdrLen) <= n
	}
	return false
}

// encodeVnet writes the header of an outgoing packet. The stack leaves a
// partial checksum in TCP segments alone, and only for devices that have GSO.
func encodeVnet(dst *[VnetHdrLen]byte, pkt *stack.PacketBuffer) {
	*dst = [VnetHdrLen]byte{}
	gso := &pkt.GSOOptions
	if !gso.NeedsCsum || (gso.Type != stack.GSOTCPv4 && gso.Type != stack.GSOTCPv6) {
		return
	}
	l4 := len(pkt.LinkHeader().Slice()) + len(pkt.NetworkHeader().Slice())
	le := binary.LittleEndian
	dst[0] = vnetNeedsCsum
	le.PutUint16(dst[6:], uint16(l4))
	le.PutUint16(dst[8:], gso.CsumOffset)
	if pkt.Data().Size() <= int(gso.MSS) {
		return
	}
	dst[1] = vnetGSOTCPv4
	if gso.Type == stack.GSOTCPv6 {
		dst[1] = vnetGSOTCPv6
	}
	le.PutUint16(dst[2:], uint16(l4+len(pkt.TransportHeader().Slice())))
	le.PutUint16(dst[4:], gso.MSS)
}

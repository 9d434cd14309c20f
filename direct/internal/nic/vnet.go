package nic

import "encoding/binary"

// Flags and GSO types of struct virtio_net_hdr (virtio 1.2, 5.1.6).
const (
	VnetNeedsCsum = 1
	VnetDataValid = 2
	// VnetStamped is ours, not virtio's: HdrLen and GSOSize, which have no
	// meaning without GSO, hold a stamp.
	VnetStamped = 0x80

	GSONone  = 0
	GSOTCPv4 = 1
	GSOTCPv6 = 4
	GSOECN   = 0x80
)

// VnetHdr is a decoded struct virtio_net_hdr.
type VnetHdr struct {
	Flags, GSOType                         uint8
	HdrLen, GSOSize, CsumStart, CsumOffset uint16
}

// Parse decodes b. All values of b are possible; see Check.
func (h *VnetHdr) Parse(b *[VnetHdrLen]byte) {
	h.Flags, h.GSOType = b[0], b[1]
	h.HdrLen = binary.LittleEndian.Uint16(b[2:])
	h.GSOSize = binary.LittleEndian.Uint16(b[4:])
	h.CsumStart = binary.LittleEndian.Uint16(b[6:])
	h.CsumOffset = binary.LittleEndian.Uint16(b[8:])
}

// Put encodes h into the first VnetHdrLen bytes of b.
func (h *VnetHdr) Put(b []byte) {
	_ = b[VnetHdrLen-1]
	b[0], b[1] = h.Flags, h.GSOType
	binary.LittleEndian.PutUint16(b[2:], h.HdrLen)
	binary.LittleEndian.PutUint16(b[4:], h.GSOSize)
	binary.LittleEndian.PutUint16(b[6:], h.CsumStart)
	binary.LittleEndian.PutUint16(b[8:], h.CsumOffset)
}

// SetStamp puts a stamp into the header of a frame that is not to be segmented.
func (h *VnetHdr) SetStamp(stamp uint32) {
	h.Flags |= VnetStamped
	h.HdrLen, h.GSOSize = uint16(stamp), uint16(stamp>>16)
}

// Stamp returns the stamp in the virtio_net_hdr that begins b, if there is one:
// the number of the frame among those that the NIC's steering program saw for an
// instance while that was switched between server and direct mode, from 1 on.
// Frames of both paths share the numbers, so that they can be put in order.
func Stamp(b []byte) (stamp uint32, ok bool) {
	if b[0]&VnetStamped == 0 || b[1] != GSONone {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b[2:]), true
}

// Check says whether h describes a frame of n bytes that a device with
// offloads o can send: a checksum field inside the frame, and segmentation
// only of TCP, with a segment size.
func (h *VnetHdr) Check(n int, o Offloads) error {
	if int(h.HdrLen) > n {
		return ErrBadHeader
	}
	if h.Flags&VnetNeedsCsum != 0 {
		if !o.TXChecksum || int(h.CsumStart) < EthHdrLen || int(h.CsumStart)+int(h.CsumOffset)+2 > n {
			return ErrBadHeader
		}
	}
	switch h.GSOType &^ GSOECN {
	case GSONone:
		return nil
	case GSOTCPv4, GSOTCPv6:
		if o.GSOMax == 0 || h.GSOSize == 0 || h.Flags&VnetNeedsCsum == 0 {
			return ErrBadHeader
		}
		return nil
	}
	return ErrBadHeader
}

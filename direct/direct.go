// Package direct gives an instance network queues of its own: AF_XDP sockets
// on a NIC's queues, or a multi-queue TAP where those cannot serve. No frame
// passes through the host's TCP/IP.
//
// Frames are described as virtio-net does it, by a 10-byte struct
// virtio_net_hdr (virtio 1.2, 5.1.6, little-endian) in front of the Ethernet
// frame.
package direct

import (
	"junction/direct/afxdp"
	"junction/direct/internal/nic"
)

// VnetHdrLen is the length of struct virtio_net_hdr without num_buffers.
const VnetHdrLen = nic.VnetHdrLen

// MaxFrame is the length in bytes of the longest frame of any device.
const MaxFrame = nic.MaxFrame

// The types that all drivers share.
type (
	Device     = nic.Device
	Queue      = nic.Queue
	QueueStats = nic.QueueStats
	Offloads   = nic.Offloads
	Mode       = nic.Mode
	Options    = nic.Options
	Channels   = nic.Channels
	Outlet     = nic.Outlet

	// Export and AdoptOptions: queues that another process made, see Adopt.
	Export       = afxdp.Export
	AdoptOptions = afxdp.AdoptOptions
)

// VnetStamped is set among the flags of a received frame's virtio_net_hdr that
// bears a stamp, see Stamp.
const VnetStamped = nic.VnetStamped

// Stamp returns the stamp in the virtio_net_hdr that begins b, if there is one:
// the number of the frame among those that the NIC's steering program saw for an
// instance while that was switched between server and direct mode, from 1 on.
// Frames of both paths share the numbers, so that they can be put in order.
func Stamp(b []byte) (stamp uint32, ok bool) { return nic.Stamp(b) }

// Adopt makes this process the user of queues that another one has made:
// afxdp.Adopt.
func Adopt(e Export, files []int, o AdoptOptions) (Device, error) {
	d, err := afxdp.Adopt(e, files, o)
	if err != nil {
		return nil, err // not d: a nil pointer in an interface is not nil
	}
	return d, nil
}

// The errors of this package, for errors.Is. Their texts say what to do.
var (
	ErrNoNIC        = nic.ErrNoNIC
	ErrInUse        = nic.ErrInUse
	ErrPermission   = nic.ErrPermission
	ErrUnsupported  = nic.ErrUnsupported
	ErrMTU          = nic.ErrMTU
	ErrDefaultRoute = nic.ErrDefaultRoute
	ErrFull         = nic.ErrFull
	ErrTooLong      = nic.ErrTooLong
	ErrBadFrame     = nic.ErrBadFrame
	ErrBadHeader    = nic.ErrBadHeader
	ErrGeometry     = afxdp.ErrGeometry
)

// Package direct gives an instance network queues of its own: AF_XDP sockets
// on a NIC's queues, or a multi-queue TAP where those cannot serve. No frame
// passes through the host's TCP/IP.
//
// Frames are described as virtio-net does it, by a 10-byte struct
// virtio_net_hdr (virtio 1.2, 5.1.6, little-endian) in front of the Ethernet
// frame.
package direct

import "junction/direct/internal/nic"

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
)

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
)

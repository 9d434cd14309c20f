// Package nic holds what the drivers of package direct share: the types that
// direct exports, its errors, and the parts of the set-up that do not depend
// on the driver.
package nic

import (
	"log/slog"
	"net"
)

// VnetHdrLen is the length in bytes of struct virtio_net_hdr (virtio 1.2,
// 5.1.6) without num_buffers, the header in front of every frame.
const VnetHdrLen = 10

// EthHdrLen is the length in bytes of an untagged Ethernet header, VLANTagLen
// that of one 802.1Q tag. A frame may be MTU+EthHdrLen+VLANTagLen bytes long.
const (
	EthHdrLen  = 14
	VLANTagLen = 4
)

// MaxFrame is the length in bytes of the longest frame that a queue receives
// or sends: an IP packet of 64 KiB for segmentation by the device.
const MaxFrame = 65535 + EthHdrLen + VLANTagLen

// Queue is one receive and one transmit queue of a device.
//
// One goroutine at a time may use the receive side (Receive, Release, Wait)
// and one at a time the transmit side (Transmit, Flush, TransmitWait); the two
// sides are independent. Wake and Stats may be called from anywhere. After the
// device's Close every call returns net.ErrClosed or does nothing.
type Queue interface {
	// Receive stores up to len(batch) waiting frames in batch without blocking
	// or allocating and returns their number. Each element is a virtio_net_hdr
	// followed by the Ethernet frame, valid until Release or the device's
	// Close. Frames that are not released hold buffers: a caller releases
	// before it waits.
	Receive(batch [][]byte) (int, error)
	// Release gives the buffers of all frames received so far back.
	Release()
	// Wait blocks until a frame may be waiting, Wake is called, or the queue
	// can no longer receive: net.ErrClosed after Close, ErrNoNIC when the NIC
	// has been deleted.
	Wait() error
	// Wake makes the current or the next Wait and TransmitWait return.
	Wake()
	// Transmit queues one frame, the concatenation of parts, and copies or
	// writes it before it returns. hdr is its virtio_net_hdr; nil stands for
	// one of zeros. ErrFull: not queued, call Flush and try again. ErrTooLong,
	// ErrBadFrame and ErrBadHeader: not queued, trying again is useless.
	Transmit(hdr *[VnetHdrLen]byte, parts [][]byte) error
	// Flush makes the device transmit what is queued, in steady state with one
	// system call, or none when nothing is queued. ErrFull: the device has not
	// taken all of it yet; call TransmitWait and Flush again.
	Flush() error
	// TransmitWait blocks until there may be room again, Wake is called, or
	// the device is closed (net.ErrClosed).
	TransmitWait() error
	// Stats returns the counters of the queue.
	Stats() QueueStats
}

// QueueStats counts frames and their bytes (Ethernet header included,
// virtio_net_hdr not) since the queue was opened.
//
// Every frame that reached the queue is either in RxPackets, once Receive has
// returned it, in one of the Drops, or still in the queue; every frame that
// Transmit accepted is in TxPackets, once it has been flushed, or in a
// tx-reason of Drops. Refused counts calls of Transmit that returned an
// error: the caller still has the frame.
type QueueStats struct {
	RxPackets uint64 `json:"rx_packets"`
	RxBytes   uint64 `json:"rx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
	// Syscalls counts the system calls of the data path.
	Syscalls uint64 `json:"syscalls"`
	// BadIndices counts entries and indices of rings in shared memory that no
	// honest peer can have written and that were ignored.
	BadIndices uint64            `json:"bad_indices"`
	Drops      map[string]uint64 `json:"drops"`
	Refused    map[string]uint64 `json:"refused"`
}

// Add adds o to s.
func (s *QueueStats) Add(o QueueStats) {
	s.RxPackets += o.RxPackets
	s.RxBytes += o.RxBytes
	s.TxPackets += o.TxPackets
	s.TxBytes += o.TxBytes
	s.Syscalls += o.Syscalls
	s.BadIndices += o.BadIndices
	s.Drops = addAll(s.Drops, o.Drops)
	s.Refused = addAll(s.Refused, o.Refused)
}

func addAll(to, from map[string]uint64) map[string]uint64 {
	if to == nil {
		to = make(map[string]uint64, len(from))
	}
	for reason, n := range from {
		to[reason] += n
	}
	return to
}

// Offloads says what a device does for the stack above it.
type Offloads struct {
	// TXChecksum: Transmit takes frames whose transport checksum is partial
	// (VIRTIO_NET_HDR_F_NEEDS_CSUM).
	TXChecksum bool `json:"tx_checksum"`
	// GSOMax is the largest TCP packet over IPv4 or IPv6, in bytes without its
	// Ethernet header, that Transmit takes for segmentation by the device; 0
	// means that it takes none over the MTU.
	GSOMax int `json:"gso_max_bytes"`
	// RXJoined: received TCP segments may be joined to packets of up to 64 KiB.
	RXJoined bool `json:"rx_joined"`
	// RXTrusted: the flags NEEDS_CSUM and DATA_VALID of a received frame mean
	// that its transport checksum need not be verified. Without it they are
	// never set.
	RXTrusted bool `json:"rx_trusted"`
}

// Mode says what a device really uses, never what was asked for.
type Mode struct {
	NIC string `json:"nic"`
	// Driver is "afxdp", "tap" or "afpacket".
	Driver string `json:"driver"`
	// Attach is how the driver reaches the NIC: "native" or "generic" XDP,
	// "tap", "macvtap" (passthru on top of the NIC), or "socket".
	Attach string `json:"attach"`
	// Copy is "zero-copy" or "copy".
	Copy       string `json:"copy"`
	NeedWakeup bool   `json:"need_wakeup"`
	// Frags: frames may span several buffers of the NIC (jumbo MTU).
	Frags  bool `json:"frags"`
	Queues int  `json:"queues"`
	// Outlet says which frames leave by a TAP beside an AF_XDP queue.
	Outlet Outlet `json:"outlet,omitempty"`
	// Warnings name each fast path that could not be had, with the reason.
	Warnings []string `json:"warnings,omitempty"`
}

// Outlet says which frames of an AF_XDP queue leave by a TAP that passes them on to
// the NIC, because the kernel or the NIC then cuts and sums what is larger than
// the MTU.
type Outlet string

// The values of Outlet.
const (
	NoOutlet       Outlet = ""
	OutletSegments Outlet = "segments" // what the socket cannot send as it is
	OutletAll      Outlet = "all"
)

// Device is an open NIC. Its methods may be called from any goroutine.
type Device interface {
	// Queues returns the queues. The slice must not be changed.
	Queues() []Queue
	// MAC returns the address that frames sent should have as their source.
	MAC() net.HardwareAddr
	// MTU returns the longest IP packet in bytes that fits into a frame.
	MTU() int
	Offloads() Offloads
	Mode() Mode
	// Stats returns the sum over the queues, also after Close.
	Stats() QueueStats
	// Close ends all calls that wait, gives the NIC back and releases all
	// memory and file descriptors. Further calls do nothing.
	Close() error
}

// Channels are numbers of a NIC's queues, as ethtool -L has them.
type Channels struct {
	RX       uint32 `json:"rx"`
	TX       uint32 `json:"tx"`
	Other    uint32 `json:"other"`
	Combined uint32 `json:"combined"`
}

// Options are the parameters of direct.Open.
type Options struct {
	// NIC is the name of the network interface.
	NIC string
	// Driver is "afxdp", "tap", "afpacket", or "" for AF_XDP with TAP where that
	// is not supported.
	Driver string
	// Queues is the number of queues; 0 means all the NIC has.
	Queues int
	// Before is, for AF_XDP, how many queues the NIC had before a process that has
	// died changed that: it gets them back. Nil: as many as it has now.
	Before *Channels
	// MTU is the longest IP packet in bytes; 0 means the NIC's own.
	MTU int
	// MAC is the address to receive for; nil means the NIC's own, or a random
	// one on a TAP, whose own address belongs to the host.
	MAC net.HardwareAddr
	// NoOutlet: whatever is larger than the MTU is cut before it reaches an AF_XDP
	// queue. Otherwise see Mode.Outlet.
	NoOutlet bool
	// Logger receives warnings; nil means none is logged. They are also in
	// Mode.
	Logger *slog.Logger
}

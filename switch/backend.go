package modeswitch

import (
	"errors"
	"fmt"
	"net"

	"junction/direct"
	"junction/ipc"
)

// Queue is one receive and one transmit queue of a back end.
//
// One goroutine at a time uses the receive side (Receive, Release, Wait) and
// one at a time the transmit side (Transmit, Flush); the sides are independent
// of each other. Wake may be called from anywhere.
type Queue interface {
	// Receive stores up to len(batch) waiting frames in batch, without
	// blocking, and returns their number. Each is a virtio_net_hdr followed by
	// an Ethernet frame and is valid until Release.
	Receive(batch [][]byte) (int, error)
	// Release gives the buffers of all frames received so far back.
	Release()
	// Wait blocks until a frame may be waiting or Wake is called. It returns
	// an error, net.ErrClosed among others, when nothing will ever come.
	Wait() error
	// Wake makes the current or else the next Wait return.
	Wake()
	// Transmit queues the frame that is the concatenation of parts. It is done
	// with hdr and parts when it returns. Errors: direct.ErrFull or ipc.ErrFull
	// (Flush makes room), direct.ErrTooLong or ipc.ErrTooLong, net.ErrClosed.
	Transmit(hdr *[VnetHdrLen]byte, parts [][]byte) error
	// Flush makes the device send what is queued. ErrFull: it has not
	// taken all of it; flush again after TransmitWait.
	Flush() error
	// TransmitWait blocks until there may be room, Wake is called, or the
	// queue is closed. It belongs to the transmit side.
	TransmitWait() error
}

// isFull tells whether a queue is full for now.
func isFull(err error) bool { return errors.Is(err, direct.ErrFull) || errors.Is(err, ipc.ErrFull) }

// isTooLong tells whether a queue will never take a frame.
func isTooLong(err error) bool {
	return errors.Is(err, direct.ErrTooLong) || errors.Is(err, ipc.ErrTooLong)
}

// Backend is what an Endpoint sends to and receives from.
type Backend struct {
	// Queues are the device's queues, at least one. A flow keeps to one of them.
	Queues []Queue
	// MAC is the device's Ethernet address.
	MAC net.HardwareAddr
	// MTU is the largest IP packet of the device, in bytes.
	MTU int
	// TXChecksum: the device completes partial checksums (VIRTIO_NET_HDR_F_NEEDS_CSUM).
	TXChecksum bool
	// GSOMax is the largest TCP segment, with its headers, that the device
	// cuts itself, in bytes; 0 means none. It takes effect only with TXChecksum.
	GSOMax int
	// Takes, if not nil, tells which frames may leave by this back end, by their
	// beginning: all headers, if the frame is the stack's own. Others leave by the
	// endpoint's first one. It must not block or keep head.
	Takes func(head []byte) bool
	// Partly: Takes refuses much for good, so that what new connections are told of
	// offloads is what the first back end has.
	Partly bool
	// RXJoined: the device may hand over TCP segments joined to packets of up to
	// 64 KiB. Of one that does not, the endpoint joins them.
	RXJoined bool
	// RXTrusted: the header's word on a received frame's checksum (NEEDS_CSUM:
	// partial, the sender is local; DATA_VALID: checked) may be relied upon.
	RXTrusted bool
}

// Limits of a back end's MTU: the smallest that IPv4 allows (RFC 791) and the
// largest IP packet.
const (
	MinMTU = 68
	MaxMTU = 65535
)

// ErrBackend is returned, wrapped, for a Backend that cannot be used.
var ErrBackend = errors.New("unusable back end")

func (b *Backend) validate() error {
	switch {
	case len(b.Queues) == 0:
		return fmt.Errorf("%w: no queues", ErrBackend)
	case len(b.MAC) != 6 || b.MAC[0]&1 != 0:
		return fmt.Errorf("%w: MAC %q is not a unicast Ethernet address", ErrBackend, b.MAC)
	case b.MTU < MinMTU || b.MTU > MaxMTU:
		return fmt.Errorf("%w: MTU %d is not between %d and %d", ErrBackend, b.MTU, MinMTU, MaxMTU)
	case b.GSOMax < 0 || b.GSOMax > 1<<16:
		return fmt.Errorf("%w: GSO size %d is not between 0 and %d", ErrBackend, b.GSOMax, 1<<16)
	}
	for i, q := range b.Queues {
		if q == nil {
			return fmt.Errorf("%w: queue %d is nil", ErrBackend, i)
		}
	}
	return nil
}

// Queues turns a slice of some queue type into what Backend wants.
func Queues[Q Queue](qs []Q) []Queue {
	out := make([]Queue, len(qs))
	for i, q := range qs {
		out[i] = q
	}
	return out
}

package afxdp

import (
	"context"
	"errors"
	"fmt"

	"junction/direct/internal/nic"
	"junction/direct/internal/outlet"
)

// leaves tells whether a frame is one for the outlet: to be cut, or with a partial
// checksum where the socket has nobody to complete it.
func (t *transmitter) leaves(hdr *[nic.VnetHdrLen]byte) bool {
	return hdr != nil && (hdr[1] != nic.GSONone || hdr[0]&nic.VnetNeedsCsum != 0 && !t.offloads.TXChecksum)
}

// leave sends a frame by the outlet, behind all that was given to the socket: in
// copy mode that has gone when the kernel has taken it.
func (q *Queue) leave(hdr *[nic.VnetHdrLen]byte, parts [][]byte) error {
	if q.t.queued != 0 || q.retry {
		if err := q.Flush(); err != nil {
			return err
		}
	}
	err := q.outlet.Transmit(hdr, parts)
	q.waits = errors.Is(err, nic.ErrFull)
	return err
}

// openOutlet gives the NIC an outlet, but for queues whose memory the driver reads:
// they are better off. A NIC without can do all it could, slower.
func (n *NIC) openOutlet(ctx context.Context) {
	if n.sockets[0].ZeroCopy {
		return
	}
	index := n.link.Attrs().Index
	err := nic.Retry(ctx, func() error {
		program, err := outlet.To(index)
		if err != nil {
			return err
		}
		defer program.Close() // the device keeps it
		n.outlet, err = outlet.New(n.link, fmt.Sprintf("jtx%d", index), len(n.sockets), program)
		return err
	})
	if err != nil {
		n.outlet = nil
		n.link.Warn("TCP segments are cut and summed here, one by one: %v", err)
	}
}

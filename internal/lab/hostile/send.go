package hostile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"junction/internal/lab"
	"junction/internal/lab/afpacket"
)

// Report says what Send sent.
type Report struct {
	// Sent counts the frames of each class that the kernel took.
	Sent map[Class]int
	// Refused counts those that it refused to send, for example as too long for
	// the link.
	Refused map[Class]int
}

// Total is the number of frames sent.
func (r Report) Total() (n int) {
	for _, c := range r.Sent {
		n += c
	}
	return n
}

// Send sends n frames of a generator with that seed from a NIC of the namespace,
// as fast as they go, until the context ends.
func Send(ctx context.Context, ns *lab.Namespace, ifname string, t Target, n int, seed uint64) (Report, error) {
	r := Report{Sent: map[Class]int{}, Refused: map[Class]int{}}
	g, err := New(seed, t)
	if err != nil {
		return r, err
	}
	var s *afpacket.Socket
	err = ns.Do(func() (err error) {
		s, err = afpacket.Open(ifname, afpacket.Options{SendOnly: true, VnetHdr: true})
		return err
	})
	if err != nil {
		return r, fmt.Errorf("hostile: %w", err)
	}
	return r, errors.Join(r.send(ctx, s, g, n), s.Close())
}

func (r Report) send(ctx context.Context, s *afpacket.Socket, g *Generator, n int) error {
	for range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		class, frame := g.Next()
		err := s.Send(append(vnetHeader(class), frame...))
		if errors.Is(err, os.ErrClosed) || errors.Is(err, unix.ENETDOWN) {
			return fmt.Errorf("hostile: send: %w", err)
		}
		if err != nil {
			r.Refused[class]++
		} else {
			r.Sent[class]++
		}
	}
	return nil
}

// giantSegment is the size of the segments a Giant would be cut into.
const giantSegment = 1448

// vnetHeader returns the struct virtio_net_hdr of a frame: nothing is left to the
// NIC, unless the frame is a Giant (virtio specification, 5.1.6).
func vnetHeader(c Class) []byte {
	h := make([]byte, 10, 10+maxFrame)
	if c == Giant {
		h[0] = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
		h[1] = 1 // VIRTIO_NET_HDR_GSO_TCPV4
		binary.NativeEndian.PutUint16(h[2:], etherLen+ipv4Len+tcpLen)
		binary.NativeEndian.PutUint16(h[4:], giantSegment)
		binary.NativeEndian.PutUint16(h[6:], etherLen+ipv4Len)
		binary.NativeEndian.PutUint16(h[8:], tcpSum)
	}
	return h
}

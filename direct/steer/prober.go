package steer

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// prober sends frames by a packet socket, which it keeps: to close one takes a grace
// period of RCU (packet_release), for which a machine with too much to do may need
// seconds. The zero value is ready.
type prober struct {
	mu sync.Mutex
	// +checklocks:mu
	fd int // 0: not open
	// +checklocks:mu
	closed bool
}

// send sends a frame by the device with number index, which loses it if it has no room.
// Error: unix.ENXIO, when that is gone, or after close.
func (p *prober) send(index int, frame []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return unix.ENXIO
	}
	if p.fd == 0 {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nic.Denied(err, "open a packet socket", "CAP_NET_RAW")
		}
		p.fd = fd
	}
	err := unix.Sendto(p.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index})
	if errors.Is(err, unix.ENOBUFS) { // packet_snd says so of a frame that was dropped
		return nil
	}
	return err
}

// close ends it. Further calls do nothing.
func (p *prober) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd != 0 {
		_ = unix.Close(p.fd)
	}
	p.fd, p.closed = 0, true
}

package tap

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

const (
	// queueLength is how many frames the kernel keeps for each queue of a
	// device that we make; its default of 500 is 2.5 ms at 200,000 a second.
	queueLength = 2048
	// rxBuffers is how many frames are received before a Release.
	rxBuffers = 64
	// bufferSize holds any frame; pages that no frame has reached cost nothing.
	bufferSize = (nic.VnetHdrLen + nic.MaxFrame + 4095) &^ 4095
	// maxParts is how many parts a frame may have, its header not counted.
	maxParts = 127
)

// Queue is one file descriptor of a TAP; it implements nic.Queue.
type Queue struct {
	life   nic.Lifetime
	dev    *Device
	fd     int
	first  bool // its Wait watches the NIC
	rxPoll [3]unix.PollFd
	txPoll [2]unix.PollFd

	buffers []byte // of mapped memory, rxBuffers times bufferSize
	used    int    // buffers received and not yet released

	iov   [1 + maxParts]unix.Iovec
	noHdr [nic.VnetHdrLen]byte

	rxPackets, rxBytes, txPackets, txBytes, syscalls atomic.Uint64
	short, full, tooLong, badFrame, bad, refused     atomic.Uint64
	counted                                          atomic.Uint64 // refused, which the kernel calls dropped
}

func newQueue(d *Device, fd int) (*Queue, error) {
	q := &Queue{dev: d, fd: fd}
	if err := q.life.Init(); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make a doorbell: %w", err)
	}
	err := q.life.AddRX(fd)
	if err != nil {
		q.close()
		return nil, err
	}
	q.buffers, err = unix.Mmap(-1, 0, rxBuffers*bufferSize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		q.close()
		return nil, fmt.Errorf("get memory for frames: %w", err)
	}
	runtime.AddCleanup(q, func(b []byte) { _ = unix.Munmap(b) }, q.buffers)
	return q, nil
}

// Receive implements nic.Queue.
func (q *Queue) Receive(batch [][]byte) (n int, err error) {
	if err := q.life.Enter(); err != nil {
		return 0, err
	}
	defer q.life.Leave()
	var bytes, calls uint64
	for n < len(batch) && q.used < rxBuffers {
		buf := q.buffers[q.used*bufferSize : (q.used+1)*bufferSize]
		var got int
		got, err = unix.Read(q.fd, buf)
		calls++
		if err != nil {
			break
		}
		if got < nic.VnetHdrLen+nic.EthHdrLen {
			q.short.Add(1)
			continue
		}
		batch[n] = buf[:got:got]
		n++
		q.used++
		bytes += uint64(got - nic.VnetHdrLen)
	}
	q.syscalls.Add(calls)
	q.rxPackets.Add(uint64(n))
	q.rxBytes.Add(bytes)
	if err == nil || n > 0 || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return n, nil // an error that stays comes again
	}
	return 0, q.dev.failed("receive from", err)
}

// Release implements nic.Queue.
func (q *Queue) Release() { q.used = 0 }

// Wait implements nic.Queue.
func (q *Queue) Wait() error {
	if err := q.dev.watch.Err(); err != nil {
		return err
	}
	q.syscalls.Add(1)
	return q.life.WaitFrames(&q.rxPoll, q.fd, q.dev.watch, q.first, q.dev.queues)
}

// Wake implements nic.Queue.
func (q *Queue) Wake() { q.life.Wake() }

// Transmit implements nic.Queue. The frame is on its way when it returns.
func (q *Queue) Transmit(hdr *[nic.VnetHdrLen]byte, parts [][]byte) error {
	if hdr == nil {
		hdr = &q.noHdr
	}
	total, err := q.gather(hdr, parts)
	if err != nil {
		return err
	}
	if err := q.life.Enter(); err != nil {
		return err
	}
	err = q.writev(1 + len(parts))
	q.life.Leave()
	clear(q.iov[:1+len(parts)])
	q.syscalls.Add(1)
	if err != nil && (q.dev.macvtap != nil || !errors.Is(err, unix.EAGAIN)) {
		q.counted.Add(1)
	}
	switch {
	case err == nil:
		q.txPackets.Add(1)
		q.txBytes.Add(uint64(total))
		return nil
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR):
		q.full.Add(1)
		return nic.ErrFull
	case errors.Is(err, unix.EINVAL): // the kernel has read the header more closely
		q.bad.Add(1)
		return nic.ErrBadHeader
	}
	q.refused.Add(1)
	return q.dev.failed("send on", err)
}

// check is the part of Transmit that needs no system call.
func (q *Queue) check(hdr *[nic.VnetHdrLen]byte, total, parts int) error {
	var h nic.VnetHdr
	h.Parse(hdr)
	most := q.dev.mtu + nic.EthHdrLen + nic.VLANTagLen
	if h.GSOType != nic.GSONone {
		most = nic.MaxFrame
	}
	switch {
	case total < nic.EthHdrLen:
		q.badFrame.Add(1)
		return nic.ErrBadFrame
	case total > most || parts > maxParts:
		q.tooLong.Add(1)
		return nic.ErrTooLong
	}
	err := h.Check(total, q.dev.Offloads())
	if err != nil {
		q.bad.Add(1)
	}
	return err
}

// Flush implements nic.Queue. Nothing is ever queued.
func (q *Queue) Flush() error { return nil }

// TransmitWait implements nic.Queue.
func (q *Queue) TransmitWait() error {
	q.txPoll[1] = unix.PollFd{Fd: int32(q.fd), Events: unix.POLLOUT}
	q.syscalls.Add(1)
	return q.life.WaitTX(q.txPoll[:])
}

// Stats implements nic.Queue. What the kernel dropped because no queue was
// read in time is known for the whole device only: see Device.Stats.
func (q *Queue) Stats() nic.QueueStats {
	return nic.QueueStats{
		RxPackets: q.rxPackets.Load(),
		RxBytes:   q.rxBytes.Load(),
		TxPackets: q.txPackets.Load(),
		TxBytes:   q.txBytes.Load(),
		Syscalls:  q.syscalls.Load(),
		Drops:     map[string]uint64{"rx_short": q.short.Load()},
		Refused: map[string]uint64{
			"tx_full":       q.full.Load(),
			"tx_too_long":   q.tooLong.Load(),
			"tx_bad_frame":  q.badFrame.Load(),
			"tx_bad_header": q.bad.Load(),
			"tx_device":     q.refused.Load(),
		},
	}
}

func (q *Queue) close() {
	q.life.Close(func() {
		_ = unix.Close(q.fd)
		if q.buffers != nil {
			// Gives the memory back; the addresses stay until q is collected.
			_ = unix.Madvise(q.buffers, unix.MADV_DONTNEED)
		}
	})
}

// failed explains an error of the data path.
func (d *Device) failed(what string, err error) error {
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	if errors.Is(err, unix.EBADFD) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("%w: %s has been deleted while in use", nic.ErrNoNIC, d.name)
	}
	return fmt.Errorf("%s %s: %w", what, d.name, err)
}

package nic

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// fileBuffers is how many frames are received before a Release.
	fileBuffers = 64
	// fileBuffer holds any frame; pages that no frame has reached cost nothing.
	fileBuffer = (VnetHdrLen + MaxFrame + 4095) &^ 4095
	// maxParts is how many parts a frame may have, its header not counted.
	maxParts = 127
	// busyWait is how long to wait for a device that takes no more: no event
	// tells when it does.
	busyWait = 50 * time.Microsecond
)

// FileDevice is what the queues of a device have in common that are files which
// give and take whole frames, each with its virtio_net_hdr: a TAP, or packet
// sockets. It is complete before a queue is used.
type FileDevice struct {
	Name     string
	MTU      int
	Offloads Offloads
	Watch    *Watch
	Queues   []Queue
	// CountsFull: the kernel counts what a full queue refuses as dropped.
	CountsFull bool
}

// FileQueue is one file of a FileDevice; it implements Queue.
type FileQueue struct {
	life   Lifetime
	dev    *FileDevice
	fd     int
	first  bool // its Wait watches the NIC
	rxPoll [3]unix.PollFd
	txPoll [2]unix.PollFd
	busy   bool // the device, not the file, took no more

	several datagrams // being cut
	whole   []byte    // what several is of

	buffers []byte // of mapped memory, fileBuffers times fileBuffer
	used    int    // buffers received and not yet released

	iov   [1 + maxParts]unix.Iovec
	noHdr [VnetHdrLen]byte

	rxPackets, rxBytes, txPackets, txBytes, syscalls atomic.Uint64
	short, full, tooLong, badFrame, bad, refused     atomic.Uint64
	counted                                          atomic.Uint64 // refused, which the kernel calls dropped
}

// AddQueue makes fd, which does not block, a queue of the device. It takes fd
// over, also when it fails.
func (d *FileDevice) AddQueue(fd int) (*FileQueue, error) {
	q := &FileQueue{dev: d, fd: fd, first: len(d.Queues) == 0}
	if err := q.life.Init(); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make a doorbell: %w", err)
	}
	err := q.life.AddRX(fd)
	if err != nil {
		q.Close()
		return nil, err
	}
	q.buffers, err = unix.Mmap(-1, 0, fileBuffers*fileBuffer, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		q.Close()
		return nil, fmt.Errorf("get memory for frames: %w", err)
	}
	runtime.AddCleanup(q, func(b []byte) { _ = unix.Munmap(b) }, q.buffers)
	d.Queues = append(d.Queues, q)
	return q, nil
}

// Watches adds the device's Watch to what the first queue waits for.
func (q *FileQueue) Watches() error { return q.life.AddRX(q.dev.Watch.FD()) }

// Counted returns how many frames were refused that the kernel counts as dropped.
func (q *FileQueue) Counted() uint64 { return q.counted.Load() }

// Receive implements Queue.
func (q *FileQueue) Receive(batch [][]byte) (n int, err error) {
	if err := q.life.Enter(); err != nil {
		return 0, err
	}
	defer q.life.Leave()
	var bytes, calls uint64
	for n < len(batch) && q.used < fileBuffers {
		buf := q.buffers[q.used*fileBuffer : (q.used+1)*fileBuffer]
		var got int
		if q.several.left() {
			got = q.several.next(buf)
		} else {
			got, err = unix.Read(q.fd, buf)
			calls++
			if err != nil {
				break
			}
		}
		if got < VnetHdrLen+EthHdrLen {
			q.short.Add(1)
			continue
		}
		if buf[1] == gsoUDP && q.cut(buf[:got]) {
			continue
		}
		batch[n] = buf[:got:got]
		n++
		q.used++
		bytes += uint64(got - VnetHdrLen)
	}
	q.syscalls.Add(calls)
	q.rxPackets.Add(uint64(n))
	q.rxBytes.Add(bytes)
	if err == nil || n > 0 || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
		return n, nil // an error that stays comes again
	}
	return 0, q.dev.failed("receive from", err)
}

// cut begins to cut a frame of several datagrams.
func (q *FileQueue) cut(b []byte) bool {
	q.whole = append(q.whole[:0], b...)
	return q.several.begin(q.whole)
}

// Release implements Queue.
func (q *FileQueue) Release() { q.used = 0 }

// Wait implements Queue.
func (q *FileQueue) Wait() error {
	if q.several.left() {
		return nil
	}
	if err := q.dev.Watch.Err(); err != nil {
		return err
	}
	q.syscalls.Add(1)
	return q.life.WaitFrames(&q.rxPoll, q.fd, q.dev.Watch, q.first, q.dev.Queues)
}

// Wake implements Queue.
func (q *FileQueue) Wake() { q.life.Wake() }

// Transmit implements Queue. The frame is on its way when it returns.
func (q *FileQueue) Transmit(hdr *[VnetHdrLen]byte, parts [][]byte) error {
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
	if err != nil && (q.dev.CountsFull || !errors.Is(err, unix.EAGAIN)) {
		q.counted.Add(1)
	}
	switch {
	case err == nil:
		q.txPackets.Add(1)
		q.txBytes.Add(uint64(total))
		return nil
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR):
		q.full.Add(1)
		q.busy = errors.Is(err, unix.ENOBUFS)
		return ErrFull
	case errors.Is(err, unix.EINVAL): // the kernel has read the header more closely
		q.bad.Add(1)
		return ErrBadHeader
	}
	q.refused.Add(1)
	return q.dev.failed("send on", err)
}

// check is the part of Transmit that needs no system call.
func (q *FileQueue) check(hdr *[VnetHdrLen]byte, total, parts int) error {
	var h VnetHdr
	h.Parse(hdr)
	most := q.dev.MTU + EthHdrLen + VLANTagLen
	if h.GSOType != GSONone {
		most = MaxFrame
	}
	switch {
	case total < EthHdrLen:
		q.badFrame.Add(1)
		return ErrBadFrame
	case total > most || parts > maxParts:
		q.tooLong.Add(1)
		return ErrTooLong
	}
	err := h.Check(total, q.dev.Offloads)
	if err != nil {
		q.bad.Add(1)
	}
	return err
}

// Flush implements Queue. Nothing is ever queued.
func (q *FileQueue) Flush() error { return nil }

// TransmitWait implements Queue.
func (q *FileQueue) TransmitWait() error {
	if q.busy {
		q.busy = false
		time.Sleep(busyWait)
		if q.life.Closed() {
			return net.ErrClosed
		}
		return nil
	}
	q.txPoll[1] = unix.PollFd{Fd: int32(q.fd), Events: unix.POLLOUT}
	q.syscalls.Add(1)
	return q.life.WaitTX(q.txPoll[:])
}

// Stats implements Queue. What the kernel dropped because no queue was
// read in time is known for the whole device only: see Device.Stats.
func (q *FileQueue) Stats() QueueStats {
	return QueueStats{
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

// Close ends all calls that wait and closes the file.
func (q *FileQueue) Close() {
	q.life.Close(func() {
		_ = unix.Close(q.fd)
		if q.buffers != nil {
			// Gives the memory back; the addresses stay until q is collected.
			_ = unix.Madvise(q.buffers, unix.MADV_DONTNEED)
		}
	})
}

// failed explains an error of the data path.
func (d *FileDevice) failed(what string, err error) error {
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	if errors.Is(err, unix.EBADFD) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("%w: %s has been deleted while in use", ErrNoNIC, d.Name)
	}
	return fmt.Errorf("%s %s: %w", what, d.Name, err)
}

package nic

import (
	"errors"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxParts is how many parts a frame may have, its header not counted.
	maxParts = 127
	// busyWait is how long to wait for a device that takes no more: no event
	// tells when it does.
	busyWait = 50 * time.Microsecond
)

// FileWriter is the transmit side of a file of a FileDevice.
type FileWriter struct {
	dev    *FileDevice
	life   *Lifetime // of the queue that it belongs to, which closes fd
	fd     int
	txPoll [2]unix.PollFd
	busy   bool // the device, not the file, took no more

	iov   [1 + maxParts]unix.Iovec
	noHdr [VnetHdrLen]byte

	packets, bytes, calls                 atomic.Uint64
	full, tooLong, badFrame, bad, refused atomic.Uint64
	counted                               atomic.Uint64 // refused, which the kernel calls dropped
}

// NewFileWriter returns one for fd, which does not block, of a queue with the
// given lifetime: that closes fd.
func NewFileWriter(d *FileDevice, life *Lifetime, fd int) *FileWriter {
	w := new(FileWriter)
	w.init(d, life, fd)
	return w
}

func (w *FileWriter) init(d *FileDevice, life *Lifetime, fd int) { w.dev, w.life, w.fd = d, life, fd }

// Counted returns how many frames were refused that the kernel counts as dropped.
func (w *FileWriter) Counted() uint64 { return w.counted.Load() }

// Transmit is Queue.Transmit. The frame is on its way when it returns.
func (w *FileWriter) Transmit(hdr *[VnetHdrLen]byte, parts [][]byte) error {
	if hdr == nil {
		hdr = &w.noHdr
	}
	total, err := w.gather(hdr, parts)
	if err != nil {
		return err
	}
	if err := w.life.Enter(); err != nil {
		return err
	}
	err = w.writev(1 + len(parts))
	w.life.Leave()
	clear(w.iov[:1+len(parts)])
	w.calls.Add(1)
	if err != nil && (w.dev.CountsFull || !errors.Is(err, unix.EAGAIN)) {
		w.counted.Add(1)
	}
	switch {
	case err == nil:
		w.packets.Add(1)
		w.bytes.Add(uint64(total))
		return nil
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR):
		w.full.Add(1)
		w.busy = errors.Is(err, unix.ENOBUFS)
		return ErrFull
	case errors.Is(err, unix.EINVAL): // the kernel has read the header more closely
		w.bad.Add(1)
		return ErrBadHeader
	}
	w.refused.Add(1)
	return w.dev.failed("send on", err)
}

// check is the part of Transmit that needs no system call.
func (w *FileWriter) check(hdr *[VnetHdrLen]byte, total, parts int) error {
	var h VnetHdr
	h.Parse(hdr)
	most := w.dev.MTU + EthHdrLen + VLANTagLen
	if h.GSOType != GSONone {
		most = MaxFrame
	}
	switch {
	case total < EthHdrLen:
		w.badFrame.Add(1)
		return ErrBadFrame
	case total > most || parts > maxParts:
		w.tooLong.Add(1)
		return ErrTooLong
	}
	err := h.Check(total, w.dev.Offloads)
	if err != nil {
		w.bad.Add(1)
	}
	return err
}

// Flush is Queue.Flush. Nothing is ever queued.
func (w *FileWriter) Flush() error { return nil }

// TransmitWait is Queue.TransmitWait.
func (w *FileWriter) TransmitWait() error {
	if w.busy {
		w.busy = false
		time.Sleep(busyWait)
		if w.life.Closed() {
			return net.ErrClosed
		}
		return nil
	}
	w.txPoll[1] = unix.PollFd{Fd: int32(w.fd), Events: unix.POLLOUT}
	w.calls.Add(1)
	return w.life.WaitTX(w.txPoll[:])
}

// Stats counts what was sent.
func (w *FileWriter) Stats() QueueStats {
	return QueueStats{
		TxPackets: w.packets.Load(),
		TxBytes:   w.bytes.Load(),
		Syscalls:  w.calls.Load(),
		Refused: map[string]uint64{
			"tx_full":       w.full.Load(),
			"tx_too_long":   w.tooLong.Load(),
			"tx_bad_frame":  w.badFrame.Load(),
			"tx_bad_header": w.bad.Load(),
			"tx_device":     w.refused.Load(),
		},
	}
}

package nic

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// fileBuffers is how many frames are received before a Release.
	fileBuffers = 64
	// fileBuffer holds any frame; pages that no frame has reached cost nothing.
	fileBuffer = (VnetHdrLen + MaxFrame + 4095) &^ 4095
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
	FileWriter
	life   Lifetime
	first  bool // its Wait watches the NIC
	rxPoll [3]unix.PollFd

	several datagrams // being cut
	whole   []byte    // what several is of

	buffers []byte // of mapped memory, fileBuffers times fileBuffer
	used    int    // buffers received and not yet released

	rxPackets, rxBytes, rxCalls, short atomic.Uint64
}

// AddQueue makes fd, which does not block, a queue of the device. It takes fd
// over, also when it fails.
func (d *FileDevice) AddQueue(fd int) (*FileQueue, error) {
	q := &FileQueue{first: len(d.Queues) == 0}
	q.FileWriter.init(d, &q.life, fd)
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
	q.rxCalls.Add(calls)
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
	q.rxCalls.Add(1)
	return q.life.WaitFrames(&q.rxPoll, q.fd, q.dev.Watch, q.first, q.dev.Queues)
}

// Wake implements Queue.
func (q *FileQueue) Wake() { q.life.Wake() }

// Stats implements Queue. What the kernel dropped because no queue was
// read in time is known for the whole device only: see Device.Stats.
func (q *FileQueue) Stats() QueueStats {
	s := q.FileWriter.Stats()
	s.Add(QueueStats{
		RxPackets: q.rxPackets.Load(), RxBytes: q.rxBytes.Load(), Syscalls: q.rxCalls.Load(),
		Drops: map[string]uint64{"rx_short": q.short.Load()},
	})
	return s
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

// Package queuetest provides device queues in memory, joined in pairs, for
// tests of the link endpoint and of what stands on it. What one queue of a
// pair transmits, the other receives, header and frame unchanged.
package queuetest

import (
	"net"
	"sync"

	"junction/direct"
)

const hdrLen = 10

// Options configures a pair.
type Options struct {
	// Slots is how many frames may wait in one direction. Default 256.
	Slots int
	// MaxFrame is the largest frame, in bytes, without header. Default 65600.
	MaxFrame int
	// Keep decides whether frame number n (from 0, per direction) arrives; nil
	// means all do. It is called with a lock held and must not block.
	Keep func(n uint64, frame []byte) bool
}

// Queue is one end of a pair. It has the methods of modeswitch.Queue.
type Queue struct {
	in, out *pipe
}

// pipe carries frames in one direction through reused slots.
type pipe struct {
	opts Options
	mu   sync.Mutex
	some *sync.Cond
	// slots is a ring: [freed, head) is lent to the receiver, [head, shown)
	// waits for it, [shown, tail) waits for Flush.
	slots                    [][]byte
	freed, head, shown, tail uint64
	sent                     uint64
	woken, txWoken, closed   bool
}

func newPipe(o Options) *pipe {
	p := &pipe{opts: o, slots: make([][]byte, o.Slots)}
	p.some = sync.NewCond(&p.mu)
	return p
}

// Pair returns two queues that are connected to each other.
func Pair(o Options) (a, b *Queue) {
	if o.Slots == 0 {
		o.Slots = 256
	}
	if o.MaxFrame == 0 {
		o.MaxFrame = 65600
	}
	ab, ba := newPipe(o), newPipe(o)
	return &Queue{in: ba, out: ab}, &Queue{in: ab, out: ba}
}

// Receive stores waiting frames in batch.
func (q *Queue) Receive(batch [][]byte) (int, error) {
	p := q.in
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for ; n < len(batch) && p.head < p.shown; n++ {
		batch[n] = p.slots[p.head%uint64(len(p.slots))]
		p.head++
	}
	if n == 0 && p.closed {
		return 0, net.ErrClosed
	}
	return n, nil
}

// Release gives received frames back.
func (q *Queue) Release() {
	p := q.in
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freed = p.head
	p.some.Broadcast()
}

// Wait blocks until a frame waits, Wake or Close.
func (q *Queue) Wait() error {
	p := q.in
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.head == p.shown && !p.woken && !p.closed {
		p.some.Wait()
	}
	p.woken = false
	if p.closed {
		return net.ErrClosed
	}
	return nil
}

// Wake ends the current or the next Wait and TransmitWait.
func (q *Queue) Wake() {
	q.in.mu.Lock()
	q.in.woken = true
	q.in.some.Broadcast()
	q.in.mu.Unlock()
	q.out.mu.Lock()
	q.out.txWoken = true
	q.out.some.Broadcast()
	q.out.mu.Unlock()
}

// Transmit queues a frame; the other side sees it after Flush.
func (q *Queue) Transmit(hdr *[hdrLen]byte, parts [][]byte) error {
	return q.out.put(hdr[:], parts)
}

// Inject queues a buffer, of any length, as it is and flushes.
func (q *Queue) Inject(buf []byte) error {
	if err := q.out.put(nil, [][]byte{buf}); err != nil {
		return err
	}
	return q.Flush()
}

func (p *pipe) put(hdr []byte, parts [][]byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	if p.tail-p.freed == uint64(len(p.slots)) {
		return direct.ErrFull
	}
	slot := &p.slots[p.tail%uint64(len(p.slots))]
	*slot = append((*slot)[:0], hdr...)
	for _, b := range parts {
		*slot = append(*slot, b...)
	}
	if len(*slot) > p.opts.MaxFrame+hdrLen {
		return direct.ErrTooLong
	}
	p.sent++
	if p.opts.Keep == nil || p.opts.Keep(p.sent-1, *slot) {
		p.tail++
	}
	return nil
}

// Flush shows the other side what was transmitted.
func (q *Queue) Flush() error {
	p := q.out
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	if p.shown != p.tail {
		p.shown = p.tail
		p.some.Broadcast()
	}
	return nil
}

// TransmitWait blocks until the other side has given frames back, Wake or Close.
func (q *Queue) TransmitWait() error {
	p := q.out
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.tail-p.freed == uint64(len(p.slots)) && !p.txWoken && !p.closed {
		p.some.Wait()
	}
	p.txWoken = false
	if p.closed {
		return net.ErrClosed
	}
	return nil
}

// Drained tells whether the other side has given back all that was flushed.
func (q *Queue) Drained() (bool, error) {
	p := q.out
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false, net.ErrClosed
	}
	return p.freed == p.shown, nil
}

// DrainWait blocks until it has, Wake or Close.
func (q *Queue) DrainWait() error {
	p := q.out
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.freed != p.shown && !p.txWoken && !p.closed {
		p.some.Wait()
	}
	p.txWoken = false
	if p.closed {
		return net.ErrClosed
	}
	return nil
}

// Close closes both directions for both ends.
func (q *Queue) Close() {
	for _, p := range []*pipe{q.in, q.out} {
		p.mu.Lock()
		p.closed = true
		p.some.Broadcast()
		p.mu.Unlock()
	}
}

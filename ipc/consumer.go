package ipc

import "sync/atomic"

// consumer is the private state of the side that empties a ring.
// Of all its values only seen comes from the other side.
type consumer struct {
	lane
	bits  uint8
	own   uint32 // next buffer to read
	shown uint32 // own as published: buffers from here on are not the producer's
	seen  uint32 // the producer's index as last read and found right
}

// chain is a frame in a ring: buffers buffers, of which it fills n bytes from
// offset off on.
type chain struct {
	off        int
	n, buffers uint32
}

// attachConsumer goes on where the last consumer of the ring stopped.
func attachConsumer(l lane) consumer {
	own := l.consumer.Load()
	return consumer{lane: l, bits: l.shift(), own: own, shown: own, seen: own}
}

// look reads the producer's index. An index that moved back, or into buffers
// that it has not got back, is a breach, and ignored.
func (c *consumer) look() *PeerError {
	v := c.producer.Load()
	if n := v - c.shown; n > c.size() || n < c.seen-c.shown {
		return &PeerError{BadProducer, v, c.shown}
	}
	c.seen = v
	return nil
}

// peek returns the next frame of those that look has found, which must be at
// least one.
func (c *consumer) peek() (f chain, bad *PeerError) {
	first := c.own & c.mask()
	n := atomic.LoadUint32(&c.desc[first])
	if n < VnetHdrLen+MinFrame || n > VnetHdrLen+MaxFrame {
		return chain{}, &PeerError{BadLength, n, c.own}
	}
	buffers := chainLen(n, c.bits)
	if buffers > c.seen-c.own {
		return chain{}, &PeerError{BadChain, n, c.own}
	}
	return chain{off: int(first) << c.bits, n: n, buffers: buffers}, nil
}

// known returns how many buffers look has found and advance not passed.
func (c *consumer) known() uint32 { return c.seen - c.own }

// advance passes a frame.
func (c *consumer) advance(f chain) { c.own += f.buffers }

// release gives all buffers before own back. Like publish it is a full barrier.
func (c *consumer) release() {
	c.shown = c.own
	c.consumer.Store(c.own)
}

// idle says whether the producer has published nothing beyond own.
func (c *consumer) idle() bool { return c.producer.Load() == c.own }

package ipc

// producer is the private state of the side that fills a ring.
// Of all its values only seen comes from the other side.
type producer struct {
	lane
	bits  uint8
	own   uint32 // next buffer to fill
	shown uint32 // own as published
	seen  uint32 // the consumer's index as last read and found right
	need  uint32 // buffers that the last frame refused for want of room needs
}

// attachProducer goes on where the last producer of the ring stopped. The
// consumer's index is taken on trust only when there is need for room.
func attachProducer(l lane) producer {
	own := l.producer.Load()
	return producer{lane: l, bits: l.shift(), own: own, shown: own, seen: own - l.size()}
}

// room returns how many buffers are known to be free.
func (p *producer) room() uint32 { return p.size() - (p.own - p.seen) }

// look reads the consumer's index. An index that moved back, or past what the
// consumer has been shown, is a breach, and ignored.
func (p *producer) look() *PeerError {
	v := p.consumer.Load()
	// From seen the index may move up to shown, all modulo 2^32.
	if v-p.seen > p.shown-p.seen {
		return &PeerError{BadConsumer, v, p.shown}
	}
	p.seen = v
	return nil
}

// put writes a frame of n bytes, header included, into the ring without
// publishing it. ok is false when there is no room. n is from
// VnetHdrLen+MinFrame to VnetHdrLen+MaxFrame and the sum of all lengths.
func (p *producer) put(hdr *[VnetHdrLen]byte, parts [][]byte, n uint32) (ok bool, bad *PeerError) {
	need := chainLen(n, p.bits)
	if p.room() < need {
		if bad = p.look(); bad != nil || p.room() < need {
			p.need = need
			return false, bad
		}
	}
	first := p.own & p.mask()
	off := p.copyIn(int(first)<<p.bits, hdr[:])
	for _, b := range parts {
		off = p.copyIn(off, b)
	}
	p.desc[first] = n
	p.own += need
	p.need = 0
	return true, nil
}

// publish shows all frames to the consumer. It is a full barrier: what follows
// is not moved before it.
func (p *producer) publish() {
	p.shown = p.own
	p.producer.Store(p.own)
}

// worthWaiting says whether the frame refused last still does not fit, going
// by a new reading of the consumer's index. It leaves breaches to look.
func (p *producer) worthWaiting() bool {
	used := p.own - p.consumer.Load()
	return used <= p.size() && p.size()-used < p.need
}

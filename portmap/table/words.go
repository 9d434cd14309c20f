package table

import "sync/atomic"

// Change is one store to the table.
type Change struct {
	Index uint32 // of a port entry (PortIndex), or of a slot, from 0
	Slot  bool   // a slot, not a port entry
	Key   Key    // of a slot: its address
	Word  Word
}

// words is a table in memory, shared with other processes or not. Any number
// of goroutines may look things up while one applies changes.
type words struct {
	Geometry
	slots []uint64 // header and slots
	ports []uint64
}

func (t *words) putHeader() {
	for i, v := range t.header() {
		atomic.StoreUint64(&t.slots[i], v)
	}
}

// apply stores one change whose index is within the table.
func (t *words) apply(c *Change) {
	if !c.Slot {
		atomic.StoreUint64(&t.ports[c.Index], uint64(c.Word))
		return
	}
	s := t.slot(c.Index)
	if c.Word.Kind() != Free {
		// The slot is free or has this address already: no reader takes it for
		// another address's before the word says so.
		atomic.StoreUint64(&s[0], c.Key[0])
		atomic.StoreUint64(&s[1], c.Key[1])
	}
	atomic.StoreUint64(&s[2], uint64(c.Word))
}

func (t *words) slot(i uint32) *[slotWords]uint64 {
	return (*[slotWords]uint64)(t.slots[(i+1)*slotWords:])
}

// address finds an address's word; Free if the table does not have it.
func (t *words) address(k Key) Word {
	h := t.hash(k)
	for i := range uint32(ProbeWindow) {
		switch w, here := t.slotWord((h+i)&(t.Geometry.Slots-1), k); {
		case here:
			return w
		case w == 0: // never used: the address is in no later slot
			return 0
		}
	}
	return 0
}

// slotWord reads slot i and tells whether it is k's.
func (t *words) slotWord(i uint32, k Key) (Word, bool) {
	s := t.slot(i)
	for range maxRereads {
		w := Word(atomic.LoadUint64(&s[2]))
		if w.Kind() == Free || atomic.LoadUint64(&s[0]) != k[0] || atomic.LoadUint64(&s[1]) != k[1] {
			return w, false
		}
		if Word(atomic.LoadUint64(&s[2])) == w {
			return w, true
		}
		// Switched meanwhile, or another address's now: see.
	}
	return 0, false
}

// maxRereads ends a search in memory that is not a table or that is written
// without pause, which no monitor does.
const maxRereads = 1 << 10

// lookup finds the word that decides about an endpoint.
func (t *words) lookup(k Key, proto Proto, port uint16) Word {
	w := t.address(k)
	if w.Kind() != Shared {
		return w
	}
	i := PortIndex(w.Owner(), proto, port)
	if proto >= Protos || i >= uint32(len(t.ports)) {
		return 0
	}
	return Word(atomic.LoadUint64(&t.ports[i]))
}

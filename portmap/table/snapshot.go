package table

import (
	"fmt"
	"sync/atomic"
)

// Snapshot is a table's content at a moment when nobody writes: what a monitor
// begins with when it takes the table of its predecessor over.
type Snapshot struct {
	Geometry
	Slots []Slot // Geometry.Slots of them
	Ports []Word // by PortIndex
}

// Slot is one address's entry.
type Slot struct {
	Key  Key
	Word Word
}

// NewSnapshot is the content of a table that nothing was written to.
func NewSnapshot(g Geometry) Snapshot {
	return Snapshot{g, make([]Slot, g.Slots), make([]Word, g.Ports())}
}

// Snapshot reads the maps. Their writer must have ended.
func (m *Maps) Snapshot() (Snapshot, error) {
	slots, ports, err := m.mapMemory()
	if err != nil {
		return Snapshot{}, fmt.Errorf("read the portmap: %w", err)
	}
	defer func() { _, _ = slots.unmap(), ports.unmap() }()
	return (&words{m.Geometry, slots.words, ports.words}).snapshot(), nil
}

// Snapshot reads the table, whose writer must have ended.
func (v *View) Snapshot() Snapshot { return v.table.snapshot() }

func (t *words) snapshot() Snapshot {
	s := NewSnapshot(t.Geometry)
	for i := range s.Slots {
		w := t.slot(uint32(i))
		s.Slots[i] = Slot{
			Key{atomic.LoadUint64(&w[0]), atomic.LoadUint64(&w[1])},
			Word(atomic.LoadUint64(&w[2])),
		}
	}
	for i := range s.Ports {
		s.Ports[i] = Word(atomic.LoadUint64(&t.ports[i]))
	}
	return s
}

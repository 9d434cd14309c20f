package hints

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// Options are a table's parameters. Zero values mean the defaults.
type Options struct {
	// Items is for how many threads there is room, rounded up to a power of two.
	// Default 1024.
	Items int
	// Classes is how many work classes there are. Default 16.
	Classes int
}

func (o *Options) header() (h header, err error) {
	if o.Items == 0 {
		o.Items = 1024
	}
	if o.Classes == 0 {
		o.Classes = 16
	}
	if o.Items < 1 || o.Items > MaxItems || o.Classes < 1 || o.Classes > MaxClasses {
		return h, fmt.Errorf("%w: %d items and %d classes; take 1 to %d and 1 to %d", ErrTable, o.Items, o.Classes, MaxItems, MaxClasses)
	}
	items := uint32(1) << bits.Len(uint(max(o.Items, Probes)-1))
	return header{magic: magic, version: Version, items: items, classes: uint32(o.Classes)}, nil
}

func size(h *header) int64 {
	return int64(headerSize) + int64(h.classes)*int64(classSize) + int64(h.items)*int64(itemSize)
}

// Table is the writer's side.
type Table struct {
	memory
	fd int
	m  []byte
}

// New makes the table of this process. A process has one: of several the
// actuator takes any. It is found while it is open.
func New(o Options) (*Table, error) {
	h, err := o.header()
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make a table of hints: %w", err)
	}
	t := &Table{fd: fd}
	if err = unix.Ftruncate(fd, size(&h)); err == nil {
		t.memory, t.m, err = mapped(fd, &h, unix.PROT_READ|unix.PROT_WRITE)
	}
	if err == nil {
		t.begin(&h)
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a table of hints: %w", err), t.Close())
	}
	return t, nil
}

// begin writes the header. Nobody reads it before the seals are set.
func (t *Table) begin(h *header) {
	for i, v := range []uint32{h.magic, h.version, h.items, h.classes} {
		binary.LittleEndian.PutUint32(t.m[4*i:], v)
	}
}

// Local returns a table in this process's own memory, and its reader, for
// simulations. It has no descriptor and need not be closed.
func Local(o Options) (*Table, *Reader, error) {
	h, err := o.header()
	if err != nil {
		return nil, nil, err
	}
	m := memory{make([]class, h.classes), make([]item, h.items)}
	return &Table{memory: m, fd: -1}, &Reader{memory: m, fd: -1}, nil
}

// Close ends the table, and with it all hints. Nobody may use it or its items
// any more.
func (t *Table) Close() error { return release(&t.memory, &t.m, &t.fd) }

func release(m *memory, b *[]byte, fd *int) error {
	*m = memory{}
	var err error
	if *b != nil {
		err = unix.Munmap(*b)
		*b = nil
	}
	if *fd >= 0 {
		err = errors.Join(err, unix.Close(*fd))
		*fd = -1
	}
	return err
}

// SetClass says what work class i is. One goroutine at a time.
func (t *Table) SetClass(i int, c Class) error {
	if i < 0 || i >= len(t.classes) {
		return fmt.Errorf("%w: work class %d of %d", ErrTable, i, len(t.classes))
	}
	p := &t.classes[i]
	p.count.Add(1)
	p.qos.Store(uint32(c.QoS))
	p.period.Store(uint64(max(c.Period, 0)))
	p.count.Add(1)
	return nil
}

// Item is where to write about one thread.
type Item struct{ at *item }

// Item returns the item of a thread, a new one if it has none.
func (t *Table) Item(tid int) (Item, error) {
	if tid <= 0 {
		return Item{}, fmt.Errorf("%w: thread %d", ErrTable, tid)
	}
	for i := range Probes {
		if p := t.place(uint32(tid), i); p.tid.Load() == uint32(tid) {
			return Item{p}, nil
		}
	}
	for i := range Probes {
		if p := t.place(uint32(tid), i); p.tid.CompareAndSwap(0, uint32(tid)) {
			return Item{p}, nil
		}
	}
	return Item{}, fmt.Errorf("%w: thread %d", ErrFull, tid)
}

// Set says how the item's thread stands. One goroutine at a time for each item.
func (i Item) Set(h Hint) {
	flags := uint32(0)
	if h.Idle {
		flags = flagIdle
	}
	i.at.count.Add(1)
	i.at.class.Store(h.Class)
	i.at.flags.Store(flags)
	i.at.deadline.Store(uint64(max(h.Deadline, 0)))
	i.at.count.Add(1)
}

// Release gives the item up, for another thread. Before its thread ends, or
// after.
func (i Item) Release() {
	i.Set(Hint{})
	i.at.tid.Store(0)
}

// Now is the clock of deadlines.
func Now() cs.Time {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail with this clock
	return cs.Time(ts.Nano())
}

package hints

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// Reader is the other side of a Table, of a program that is not trusted.
type Reader struct {
	memory
	fd int
	m  []byte
}

// Open attaches a reader to the table that fd is of. The descriptor is Open's
// from then on, also when it fails.
func Open(fd int) (*Reader, error) {
	r := &Reader{fd: fd}
	h, err := inspect(fd)
	if err == nil {
		r.memory, r.m, err = mapped(fd, &h, unix.PROT_READ)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// inspect returns the header, of which nothing is read again.
func inspect(fd int) (h header, err error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return h, fmt.Errorf("%w: its size is not sealed", errors.Join(ErrTable, err))
	}
	b := make([]byte, 16)
	if n, err := unix.Pread(fd, b, 0); err != nil || n < len(b) {
		return h, fmt.Errorf("%w: %d bytes", errors.Join(ErrTable, err), n)
	}
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	h = header{magic: word(0), version: word(1), items: word(2), classes: word(3)}
	switch {
	case h.magic != magic:
		return h, fmt.Errorf("%w: it begins with %#x", ErrTable, h.magic)
	case h.version != Version:
		return h, fmt.Errorf("%w: version %d; this program knows %d", ErrTable, h.version, Version)
	case h.items < Probes || h.items > MaxItems || h.items&(h.items-1) != 0 || h.classes < 1 || h.classes > MaxClasses:
		return h, fmt.Errorf("%w: %d items and %d classes", ErrTable, h.items, h.classes)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size < size(&h) {
		return h, fmt.Errorf("%w: %d bytes for %d items and %d classes", errors.Join(ErrTable, err), st.Size, h.items, h.classes)
	}
	return h, nil
}

// Close gives memory and descriptor up; nobody may use the Reader any more.
func (r *Reader) Close() error { return release(&r.memory, &r.m, &r.fd) }

// tries is how often an item that is being written is read.
const tries = 8

// Read reads what the program says of a thread: nothing, and ok is false, if it
// has no item. If that is being written, s stays as it was, and ok is false.
func (r *Reader) Read(tid int, s *Said) (ok bool) {
	for i := range Probes {
		if p := r.place(uint32(tid), i); tid > 0 && p.tid.Load() == uint32(tid) {
			return r.read(p, s)
		}
	}
	*s = Said{}
	return false
}

func (r *Reader) read(p *item, s *Said) bool {
	for range tries {
		before := p.count.Load()
		h := Hint{Deadline: bounded(p.deadline.Load()), Class: p.class.Load(), Idle: p.flags.Load()&flagIdle != 0}
		if before%2 == 0 && p.count.Load() == before {
			work, ok := r.work(h.Class)
			if ok {
				*s = Said{h, work}
			}
			return ok
		}
	}
	return false
}

// work returns a work class. One that there is not says nothing.
func (r *Reader) work(i uint32) (c Class, ok bool) {
	if i >= uint32(len(r.classes)) {
		return c, true
	}
	p := &r.classes[i]
	for range tries {
		before := p.count.Load()
		c = Class{QoS: QoS(p.qos.Load()), Period: bounded(p.period.Load())}
		if before%2 == 0 && p.count.Load() == before {
			return c, true
		}
	}
	return c, false
}

// bounded takes times of more than 146 years for none.
func bounded(v uint64) cs.Time {
	if v > math.MaxInt64/2 {
		return 0
	}
	return cs.Time(v)
}

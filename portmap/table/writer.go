package table

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Writer is the monitor's hand on the table. Its methods are not for
// concurrent use.
type Writer struct {
	file   *os.File
	mem    mapping
	table  *words
	slots  mapping
	ports  mapping
	inMaps *words // nil without maps
}

// NewWriter makes the memory behind Views. With maps, which stay the caller's,
// each change goes to them too, and the Views begin with the maps' content.
// Without (nil: no XDP program steers), the table begins empty.
func NewWriter(g Geometry, maps *Maps) (*Writer, error) {
	if err := g.Check(); err != nil {
		return nil, err
	}
	if maps != nil && maps.Geometry != g {
		return nil, fmt.Errorf("%w: the BPF maps have %+v, the table is to have %+v", ErrGeometry, maps.Geometry, g)
	}
	w := new(Writer)
	var err error
	if w.file, w.mem, err = newMemfd(g); err != nil {
		return nil, err
	}
	w.table = g.over(w.mem.words)
	w.table.putHeader()
	if maps == nil {
		return w, nil
	}
	if w.slots, w.ports, err = maps.mapMemory(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	w.inMaps = &words{g, w.slots.words, w.ports.words}
	copyWords(w.table.slots, w.inMaps.slots)
	copyWords(w.table.ports, w.inMaps.ports)
	return w, nil
}

// copyWords copies what is not 0, so that untouched pages stay unallocated.
func copyWords(to, from []uint64) {
	for i := range from {
		if v := atomic.LoadUint64(&from[i]); v != 0 {
			atomic.StoreUint64(&to[i], v)
		}
	}
}

// Apply stores changes, in order. Their indices must be within the geometry.
// Each is seen as a whole; the changes together are not.
func (w *Writer) Apply(changes []Change) {
	for i := range changes {
		w.table.apply(&changes[i])
		if w.inMaps != nil {
			w.inMaps.apply(&changes[i])
		}
	}
}

// ViewFile opens the table for OpenView in another process. The descriptor is
// the caller's to pass on and close; nobody can write through it.
func (w *Writer) ViewFile() (*os.File, error) {
	path := fmt.Sprintf("/proc/self/fd/%d", w.file.Fd())
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the portmap's memfd for reading: %w", err)
	}
	return os.NewFile(uintptr(fd), "portmap (read-only)"), nil
}

// Close unmaps the table. Views that others have mapped keep their last state.
func (w *Writer) Close() error {
	return errors.Join(w.mem.unmap(), w.slots.unmap(), w.ports.unmap(), w.file.Close())
}

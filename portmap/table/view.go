package table

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// View is a read-only mapping of the table. Lookups take no lock, make no
// system call, allocate nothing, and may run in any number of goroutines.
type View struct {
	mem   mapping
	table *words
}

// OpenView maps the table behind f, which comes from Writer.ViewFile, and
// leaves f to the caller. It refuses files that are not sealed (ErrNotSealed)
// or no table (ErrGeometry).
func OpenView(f *os.File) (*View, error) {
	v, err := openView(f)
	if err != nil {
		return nil, fmt.Errorf("open the portmap's table %s: %w", f.Name(), err)
	}
	return v, nil
}

func openView(f *os.File) (*View, error) {
	fd := int(f.Fd())
	if err := checkSealed(fd); err != nil {
		return nil, err
	}
	g, err := readGeometry(f)
	if err != nil {
		return nil, err
	}
	mem, err := mapWords(fd, g.wordCount(), unix.PROT_READ)
	if err != nil {
		return nil, err
	}
	return &View{mem, g.over(mem.words)}, nil
}

// readGeometry reads the header and checks it against the file's size.
func readGeometry(f *os.File) (Geometry, error) {
	info, err := f.Stat()
	if err != nil {
		return Geometry{}, err
	}
	if info.Size() < int64(pageSize) {
		return Geometry{}, fmt.Errorf("%w: %d bytes are too few", ErrGeometry, info.Size())
	}
	mem, err := mapWords(int(f.Fd()), slotWords, unix.PROT_READ)
	if err != nil {
		return Geometry{}, err
	}
	defer func() { _ = mem.unmap() }()
	g, err := parseHeader([slotWords]uint64(mem.words))
	if want := int64(g.wordCount()) * 8; err == nil && info.Size() != want {
		err = fmt.Errorf("%w: %d bytes, not %d", ErrGeometry, info.Size(), want)
	}
	return g, err
}

// Lookup finds the word that decides about the endpoint of the given local
// address and port (host byte order): the port's, or a dedicated address's. Its
// owner is 0 if the endpoint is nobody's.
func (v *View) Lookup(local Key, proto Proto, port uint16) Word {
	return v.table.lookup(local, proto, port)
}

// Address finds an address's own word, for what has no ports: its kind is
// Shared, Dedicated, or Free if the address is none of the table's.
func (v *View) Address(local Key) Word { return v.table.address(local) }

// Geometry is the sizes of the table.
func (v *View) Geometry() Geometry { return v.table.Geometry }

// Close unmaps the table. No lookup may be under way or follow.
func (v *View) Close() error { return v.mem.unmap() }

package table

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Names of the BPF maps, and of their pins.
const (
	slotsMap = "junction_addrs"
	portsMap = "junction_ports"
)

// Maps are the table's BPF array maps, which XDP programs look endpoints up
// in. Whoever holds a descriptor of one can write it: keep them in the monitor.
type Maps struct {
	Slots *ebpf.Map // key: 0 for the header, 1+i for slot i; value: 32 bytes
	Ports *ebpf.Map // key: PortIndex; value: a Word
	Geometry
}

// CreateMaps makes empty maps. It needs CAP_BPF.
func CreateMaps(g Geometry) (*Maps, error) {
	if err := g.Check(); err != nil {
		return nil, err
	}
	slots, err := ebpf.NewMap(slotsSpec(g))
	if err != nil {
		return nil, fmt.Errorf("create the BPF map %s: %w", slotsMap, err)
	}
	ports, err := ebpf.NewMap(portsSpec(g))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create the BPF map %s: %w", portsMap, err), slots.Close())
	}
	m := &Maps{slots, ports, g}
	if err := slots.Put(uint32(0), g.header()); err != nil {
		return nil, errors.Join(fmt.Errorf("write the header of %s: %w", slotsMap, err), m.Close())
	}
	return m, nil
}

// mapFlags lack BPF_F_RDONLY_PROG, with which the kernel maps none for writing.
const mapFlags = unix.BPF_F_MMAPABLE

func slotsSpec(g Geometry) *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: slotsMap, Type: ebpf.Array, KeySize: 4, ValueSize: slotSize, MaxEntries: g.Slots + 1, Flags: mapFlags}
}

func portsSpec(g Geometry) *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: portsMap, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: g.Ports(), Flags: mapFlags}
}

// Pin keeps the maps alive in dir, on a BPF file system and writable by the
// monitor alone, until Unpin.
func (m *Maps) Pin(dir string) error {
	if err := m.Slots.Pin(filepath.Join(dir, slotsMap)); err != nil {
		return fmt.Errorf("pin the portmap: %w", err)
	}
	if err := m.Ports.Pin(filepath.Join(dir, portsMap)); err != nil {
		return errors.Join(fmt.Errorf("pin the portmap: %w", err), m.Slots.Unpin())
	}
	return nil
}

// Unpin undoes Pin.
func (m *Maps) Unpin() error { return errors.Join(m.Slots.Unpin(), m.Ports.Unpin()) }

// LoadMaps takes over the maps that an earlier monitor pinned in dir:
// os.ErrNotExist if there are none, ErrGeometry if they are not of this version.
func LoadMaps(dir string) (*Maps, error) {
	slots, err := ebpf.LoadPinnedMap(filepath.Join(dir, slotsMap), nil)
	if err != nil {
		return nil, fmt.Errorf("load the pinned portmap: %w", err)
	}
	ports, err := ebpf.LoadPinnedMap(filepath.Join(dir, portsMap), nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("load the pinned portmap: %w", err), slots.Close())
	}
	m, err := MapsOf(slots, ports)
	if err != nil {
		return nil, fmt.Errorf("the portmap pinned in %s: %w; remove it to begin anew", dir, err)
	}
	return m, nil
}

// MapsOf makes Maps of two maps that CreateMaps made, perhaps in another process.
// It takes them over, also when it fails. Error: ErrGeometry.
func MapsOf(slots, ports *ebpf.Map) (*Maps, error) {
	m := &Maps{Slots: slots, Ports: ports}
	if err := m.readGeometry(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Maps) readGeometry() error {
	if m.Slots.Type() != ebpf.Array || m.Slots.ValueSize() != slotSize {
		return fmt.Errorf("%w: %v is not an array of slots", ErrGeometry, m.Slots)
	}
	var header [slotWords]uint64
	if err := m.Slots.Lookup(uint32(0), &header); err != nil {
		return err
	}
	var err error
	if m.Geometry, err = parseHeader(header); err != nil {
		return err
	}
	return errors.Join(mismatch(slotsSpec(m.Geometry), m.Slots), mismatch(portsSpec(m.Geometry), m.Ports))
}

func mismatch(spec *ebpf.MapSpec, m *ebpf.Map) error {
	if err := spec.Compatible(m); err != nil {
		return fmt.Errorf("%w: %w", ErrGeometry, err)
	}
	return nil
}

// Close gives the descriptors up. Pinned maps, and maps of a loaded program, live on.
func (m *Maps) Close() error { return errors.Join(m.Slots.Close(), m.Ports.Close()) }

// mapMemory maps both maps for writing.
func (m *Maps) mapMemory() (slots, ports mapping, err error) {
	const readWrite = unix.PROT_READ | unix.PROT_WRITE
	if slots, err = mapWords(m.Slots.FD(), int(m.Geometry.Slots+1)*slotWords, readWrite); err != nil {
		return slots, ports, os.NewSyscallError("mmap "+slotsMap, err)
	}
	if ports, err = mapWords(m.Ports.FD(), int(m.Geometry.Ports()), readWrite); err != nil {
		err = errors.Join(os.NewSyscallError("mmap "+portsMap, err), slots.unmap())
	}
	return slots, ports, err
}

package table

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Names of the BPF maps.
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

// Close gives the descriptors up. Maps of a loaded program, and those that another process has, live on.
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

package table

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
)

// Proto is a transport protocol with ports.
type Proto uint8

// The protocols, in the order of their ports in the table.
const (
	TCP Proto = iota
	UDP
	Protos // their number
)

// String is "tcp" or "udp".
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("proto(%d)", uint8(p))
}

// Sizes of the table.
const (
	// MaxShared is the largest number of shared addresses.
	MaxShared = 64
	// PortsPerAddr is the number of entries of one shared address.
	PortsPerAddr = uint32(Protos) << 16
	// ProbeWindow is how many slots an address may be in.
	ProbeWindow = 32

	minSlots  = ProbeWindow
	maxSlots  = 1 << 20
	slotWords = 4
	slotSize  = slotWords * 8

	magic   = 0x6a706d74 // "jpmt"
	version = 1
)

// ErrGeometry is returned, wrapped, for sizes that no table has.
var ErrGeometry = errors.New("bad geometry of the portmap's table")

// Geometry is what a reader must know to find its way in a table.
type Geometry struct {
	Shared   uint32 // shared addresses, 1 to MaxShared
	Slots    uint32 // slots for addresses, a power of two, 32 to 2^20
	HashSeed uint64 // random and secret, lest instances choose addresses that collide
}

// Check tells what is wrong with g: nil or an ErrGeometry.
func (g Geometry) Check() error {
	switch {
	case g.Shared == 0 || g.Shared > MaxShared:
		return fmt.Errorf("%w: %d shared addresses, not 1 to %d", ErrGeometry, g.Shared, MaxShared)
	case g.Slots < minSlots || g.Slots > maxSlots || g.Slots&(g.Slots-1) != 0:
		return fmt.Errorf("%w: %d slots, not a power of two from %d to %d", ErrGeometry, g.Slots, minSlots, maxSlots)
	}
	return nil
}

// Ports is the number of the table's port entries.
func (g Geometry) Ports() uint32 { return g.Shared * PortsPerAddr }

// PortIndex is the entry of a port, in host byte order, of a shared address.
func PortIndex(shared uint32, proto Proto, port uint16) uint32 {
	return shared*PortsPerAddr + uint32(proto)<<16 + uint32(port)
}

// Key is an address as the table stores it.
type Key [2]uint64

// KeyOf is the key of an address. IPv4 and its form in IPv6 are the same.
func KeyOf(a netip.Addr) Key {
	if a.Is4() {
		b := a.As4()
		return Key4(&b)
	}
	b := a.As16()
	return Key16(&b)
}

// Key4 is the key of an IPv4 address as a packet has it.
func Key4(b *[4]byte) Key {
	return Key{0, mapped4 | uint64(binary.NativeEndian.Uint32(b[:]))<<shift4}
}

// Key16 is the key of an IPv6 address as a packet has it.
func Key16(b *[16]byte) Key {
	return Key{binary.NativeEndian.Uint64(b[:8]), binary.NativeEndian.Uint64(b[8:])}
}

// Where an IPv4 address stands in a word in the host's byte order: behind 0:ffff.
var (
	mapped4 = binary.NativeEndian.Uint64([]byte{2: 0xff, 3: 0xff, 7: 0})
	shift4  = bits.TrailingZeros64(binary.NativeEndian.Uint64([]byte{4: 0xff, 5: 0xff, 6: 0xff, 7: 0xff}))
)

// Addr is the address of a key, IPv4 in its own form.
func (k Key) Addr() netip.Addr {
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:8], k[0])
	binary.NativeEndian.PutUint64(b[8:], k[1])
	return netip.AddrFrom16(b).Unmap()
}

// Probe is the number, from 0, of the i-th slot in which k may be.
func (g *Geometry) Probe(k Key, i uint32) uint32 { return (g.hash(k) + i) & (g.Slots - 1) }

func (g *Geometry) hash(k Key) uint32 { return uint32(mix(mix(k[0]^g.HashSeed) ^ k[1])) }

// mix is the finalizer of splitmix64 (Steele, Lea, Flood, OOPSLA 2014): every
// bit of x bears on every bit of the result.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * mixA
	x = (x ^ x>>27) * mixB
	return x ^ x>>31
}

const (
	mixA = 0xbf58476d1ce4e5b9
	mixB = 0x94d049bb133111eb
)

// header is slot 0 of a table.
func (g Geometry) header() [slotWords]uint64 {
	return [slotWords]uint64{magic | version<<32, g.HashSeed, uint64(g.Shared) | uint64(g.Slots)<<32, 0}
}

// parseHeader is header's inverse for memory that somebody else wrote.
func parseHeader(h [slotWords]uint64) (Geometry, error) {
	switch {
	case uint32(h[0]) != magic:
		return Geometry{}, fmt.Errorf("%w: magic %#x, not %#x: this is no portmap", ErrGeometry, uint32(h[0]), uint32(magic))
	case h[0]>>32 != version:
		return Geometry{}, fmt.Errorf("%w: version %d, this program knows %d", ErrGeometry, h[0]>>32, version)
	}
	g := Geometry{HashSeed: h[1], Shared: uint32(h[2]), Slots: uint32(h[2] >> 32)}
	return g, g.Check()
}

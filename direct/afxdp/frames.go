package afxdp

import "junction/direct/internal/nic"

// chunks keeps account of umem chunks first to first+len(kernel)-1 of one
// direction: which of them the kernel has. It is the check on every address
// that comes back through a ring: a chunk can only be had from the kernel if
// the kernel has it.
type chunks struct {
	shift  uint // log2 of the chunk size
	first  uint64
	kernel []bool
}

// give marks chunk i as the kernel's.
func (c *chunks) give(i uint32) { c.kernel[i] = true }

// take returns the number of the chunk that addr lies in, if the kernel has
// it, and marks it as ours.
func (c *chunks) take(addr uint64) (uint32, bool) {
	i := addr>>c.shift - c.first // wraps for smaller addresses
	if i >= uint64(len(c.kernel)) || !c.kernel[i] {
		return 0, false
	}
	c.kernel[i] = false
	return uint32(i), true
}

// addr returns the address of the first byte of chunk i.
func (c *chunks) addr(i uint32) uint64 { return (c.first + uint64(i)) << c.shift }

// fits says whether n bytes at addr lie within one chunk and leave room in
// front of them for a virtio_net_hdr.
func (c *chunks) fits(addr uint64, n uint32) bool {
	size := uint64(1) << c.shift
	off := addr & (size - 1)
	return off >= nic.VnetHdrLen && uint64(n) <= size-off
}

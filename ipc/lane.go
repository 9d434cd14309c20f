package ipc

import (
	"math/bits"
	"sync/atomic"
)

// lane is the shared memory of one ring. Everything behind its pointers and
// slices may be changed by the other side at any time.
type lane struct {
	producer, consumer *atomic.Uint32
	rxSleep, txSleep   *atomic.Uint64
	desc               []uint32 // a power of two
	data               []byte   // len(desc) buffers
}

func (l *lane) size() uint32 { return uint32(len(l.desc)) }

func (l *lane) mask() uint32 { return uint32(len(l.desc) - 1) }

// shift returns the logarithm of the buffer size.
func (l *lane) shift() uint8 { return uint8(bits.TrailingZeros(uint(len(l.data) / len(l.desc)))) }

// copyIn writes b at offset off, going on at the start after the end, and
// returns the offset after it.
func (l *lane) copyIn(off int, b []byte) int {
	n := copy(l.data[off:], b)
	if n == len(b) {
		return off + n
	}
	return copy(l.data, b[n:])
}

// copyOut fills b from offset off on.
func (l *lane) copyOut(b []byte, off int) {
	n := copy(b, l.data[off:])
	if n < len(b) {
		copy(b[n:], l.data)
	}
}

// pieces returns the n bytes from offset off on, in two pieces if they go on at
// the start. off may be past the end.
func (l *lane) pieces(off, n int) (a, b []byte) {
	off &= len(l.data) - 1
	if end := off + n; end <= len(l.data) {
		return l.data[off:end:end], nil
	}
	rest := n - (len(l.data) - off)
	return l.data[off:], l.data[:rest:rest]
}

// chainLen returns how many buffers of 1<<shift bytes n bytes take. n is at
// most VnetHdrLen+MaxFrame.
func chainLen(n uint32, shift uint8) uint32 { return (n + 1<<shift - 1) >> shift }

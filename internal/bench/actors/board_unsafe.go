package actors

import "unsafe"

// Invariants of this file:
//   - A board's file is boardSize bytes long and only these programs know it; they
//     never make it shorter.
//   - Board has no pointers, and any bits are valid values of it; a mapping is
//     page-aligned and boardSize long.

const boardSize = int64(unsafe.Sizeof(Board{}))

func boardIn(m []byte) *Board { return (*Board)(unsafe.Pointer(&m[0])) }

// memory is the whole mapping that boardIn got.
func (b *Board) memory() []byte { return unsafe.Slice((*byte)(unsafe.Pointer(b)), boardSize) }

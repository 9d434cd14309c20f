package ipc

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Lengths of frames and of what is put in front of them, in bytes.
const (
	// VnetHdrLen is the length of struct virtio_net_hdr without num_buffers.
	VnetHdrLen = 10
	// MinFrame is an Ethernet header.
	MinFrame = 14
	// MaxFrame is an IP packet of 65,535 bytes in an Ethernet frame with a
	// VLAN tag.
	MaxFrame = 65535 + 14 + 4
)

// Limits of Options.
const (
	minBuffers    = 1024 // keeps the descriptors a whole number of pages
	maxBuffers    = 1 << 20
	minBufferSize = 64
	maxBufferSize = 4096
	maxLaneSize   = 64 << 20
)

// Options are the sizes of a ring pair. Zero values mean the defaults.
type Options struct {
	// Buffers is the number of buffers in each direction, a power of two from
	// 1024 to 2^20. Default 8192.
	Buffers int
	// BufferSize is the length of one buffer in bytes, a power of two from 64
	// to 4096. Default 128: a frame of 64 bytes takes one, one of 1514 twelve.
	// All buffers of a direction hold two of the longest frames at least, and
	// 64 MiB at most.
	BufferSize int
}

func (o Options) withDefaults() Options {
	if o.Buffers == 0 {
		o.Buffers = 8192
	}
	if o.BufferSize == 0 {
		o.BufferSize = 128
	}
	return o
}

func (o Options) check() error {
	switch {
	case !powerOfTwo(o.Buffers, minBuffers, maxBuffers):
		return fmt.Errorf("%w: %d buffers; take a power of two from %d to %d", ErrOptions, o.Buffers, minBuffers, maxBuffers)
	case !powerOfTwo(o.BufferSize, minBufferSize, maxBufferSize):
		return fmt.Errorf("%w: buffers of %d bytes; take a power of two from %d to %d", ErrOptions, o.BufferSize, minBufferSize, maxBufferSize)
	case o.laneSize() < 2*(VnetHdrLen+MaxFrame) || o.laneSize() > maxLaneSize:
		return fmt.Errorf("%w: %d buffers of %d bytes; all together take from %d to %d bytes",
			ErrOptions, o.Buffers, o.BufferSize, 2*(VnetHdrLen+MaxFrame), maxLaneSize)
	}
	return nil
}

func powerOfTwo(n, least, most int) bool {
	return n >= least && n <= most && bits.OnesCount(uint(n)) == 1
}

func (o Options) laneSize() int { return o.Buffers * o.BufferSize }

// Side is one of the two ends of a ring pair.
type Side uint8

// The sides. They differ only in which ring they produce for.
const (
	ServerSide Side = iota
	InstanceSide
	sides
)

// String returns "server" or "instance".
func (s Side) String() string {
	switch s {
	case ServerSide:
		return "server"
	case InstanceSide:
		return "instance"
	}
	return fmt.Sprintf("side %d", uint8(s))
}

// The memfd, version 1, native byte order (both processes run on one machine):
//
//	   0  header: magic, version, buffers, buffer size
//	 512  control words of the ring from server to instance
//	1024  control words of the ring from instance to server
//	4096  descriptors server to instance, 4 bytes each
//	   …  descriptors instance to server
//	   …  buffers server to instance
//	   …  buffers instance to server
//
// Each control word has 128 bytes to itself, a cache line and the one that the
// hardware fetches with it, because each is written by another side or at
// another rate.
const (
	version     = 1
	magic       = "jnctring"
	headerLen   = 20
	controlBase = 512
	controlSize = 512
	descBase    = 4096

	offProducer = 0   // uint32, written by the producer
	offConsumer = 128 // uint32, written by the consumer
	offRxSleep  = 256 // uint64, written by the consumer
	offTxSleep  = 384 // uint64, written by the producer
)

// memSize returns the size of the memfd in bytes.
func (o Options) memSize() int { return descBase + 2*(4*o.Buffers+o.laneSize()) }

// laneOffsets returns where the parts of ring dir (0 or 1) begin.
func (o Options) laneOffsets(dir int) (control, desc, data int) {
	return controlBase + dir*controlSize,
		descBase + dir*4*o.Buffers,
		descBase + 2*4*o.Buffers + dir*o.laneSize()
}

func (o Options) putHeader(b []byte) {
	copy(b, magic)
	binary.NativeEndian.PutUint32(b[8:], version)
	binary.NativeEndian.PutUint32(b[12:], uint32(o.Buffers))
	binary.NativeEndian.PutUint32(b[16:], uint32(o.BufferSize))
}

// parseHeader decodes and checks b, a private copy of the header of a memfd of
// size bytes.
func parseHeader(b *[headerLen]byte, size int64) (Options, error) {
	if string(b[:8]) != magic {
		return Options{}, fmt.Errorf("%w: it does not begin with %q", ErrLayout, magic)
	}
	if v := binary.NativeEndian.Uint32(b[8:]); v != version {
		return Options{}, fmt.Errorf("%w: it has version %d, this program knows %d; use programs of one release", ErrLayout, v, version)
	}
	o := Options{
		Buffers:    int(binary.NativeEndian.Uint32(b[12:])),
		BufferSize: int(binary.NativeEndian.Uint32(b[16:])),
	}
	if err := o.check(); err != nil {
		return Options{}, fmt.Errorf("%w: %w", ErrLayout, err)
	}
	if int64(o.memSize()) != size {
		return Options{}, fmt.Errorf("%w: it is %d bytes long, its header says %d", ErrLayout, size, o.memSize())
	}
	return o, nil
}

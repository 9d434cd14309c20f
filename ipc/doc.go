// Package ipc carries Ethernet frames between two processes that do not trust
// each other: an instance and the network server. A third, the monitor, makes
// the rings and hands each side its file descriptors.
//
// A ring pair is one sealed memfd, with a descriptor ring and buffers for each
// direction, and one doorbell for each direction. Every ring has one producer
// and one consumer; no lock, no system call and no allocation is needed to pass
// a frame.
//
// # Frames
//
// A frame travels as virtio-net would carry it: a 10-byte struct
// virtio_net_hdr (virtio 1.2, 5.1.6, little-endian), then the Ethernet frame of
// 14 to MaxFrame bytes. Partial checksums and segments of up to 64 KiB stay as
// they are. The ring does not look at either; what the consumer gets is a
// private copy that it can parse without the producer changing it meanwhile.
//
// # Rings
//
// There are as many descriptors as buffers, both a power of two. Descriptor i
// belongs to buffer i and is one 32-bit word: the length of the frame that
// starts there, header included. A frame that is longer than a buffer takes the
// buffers that follow, modulo their number: a chain is given by its first
// buffer and its length alone, so it cannot loop, overlap another or point
// outside. Indices run freely and wrap at 2^32. Buffers from the consumer's
// index up to the producer's belong to the consumer, the others to the producer.
//
// # Trust
//
// Both sides may write anywhere in the memfd at any time. Each side keeps its
// own index privately and only publishes it. It reads the other's index and each
// descriptor with one atomic load, checks the value, and works with that value.
// A value that no honest peer can have written ends the use of the ring with
// ErrPeer and a named counter. Seals keep the memfd at its size, so that no
// access to it raises SIGBUS.
//
// # Sleeping
//
// Each side says in a word of its own that it sleeps: the word counts up, odd
// for asleep. To sleep: write odd, then look at the other's index once more, then
// block. To wake: publish the index, then look at the word, and ring if it is odd
// and this value has not been rung for. Both pairs are a store followed by a load
// of another word; Go's atomic operations are sequentially consistent (The Go
// Memory Model), so at least one side sees the other's store.
//
// # Successors
//
// A process that dies leaves its indices in the memfd. Whoever attaches in its
// place goes on from there. Frames that had been received but not released come
// again; frames that had been transmitted but not flushed are gone.
package ipc

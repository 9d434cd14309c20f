package ipc

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart with errors.Is. A closed End returns
// net.ErrClosed.
var (
	// ErrFull: no room now; Flush, TransmitWait, and try again.
	ErrFull = errors.New("ring is full")
	// ErrTooLong: the frame is longer than MaxFrame.
	ErrTooLong = errors.New("frame is too long")
	// ErrBadFrame: the frame is shorter than an Ethernet header.
	ErrBadFrame = errors.New("frame is shorter than an Ethernet header")
	// ErrPeer: the other side broke the protocol; the ring pair is of no
	// further use, and who holds the other side is not to be trusted.
	ErrPeer = errors.New("peer broke the ring protocol")
	// ErrGone: nobody holds the other side any more.
	ErrGone = errors.New("peer is gone")
	// ErrLayout: a descriptor is not that of a ring pair of this version.
	ErrLayout = errors.New("not a usable ring pair")
	// ErrOptions: a ring pair of these sizes cannot be made.
	ErrOptions = errors.New("impossible ring size")
)

// Breach is one way to break the protocol.
type Breach uint8

// What an honest peer never writes.
const (
	// BadProducer: the producer's index moved back or past the room it has.
	BadProducer Breach = iota
	// BadConsumer: the consumer's index moved back or past the producer's.
	BadConsumer
	// BadLength: a descriptor's length is no frame's.
	BadLength
	// BadChain: a frame reaches past what the producer has published.
	BadChain
	breaches
)

var breachNames = [breaches]string{"bad_producer_index", "bad_consumer_index", "bad_length", "bad_chain"}

// String returns the name of the counter in Stats.Breaches.
func (b Breach) String() string { return breachNames[b] }

// PeerError is an ErrPeer with what was found.
type PeerError struct {
	Breach Breach
	// Value is what the peer wrote, Own the index that it was compared with.
	Value, Own uint32
}

// Error implements error.
func (e *PeerError) Error() string {
	return fmt.Sprintf("%v: %v %#x (own index %#x); drop this peer", ErrPeer, e.Breach, e.Value, e.Own)
}

// Unwrap makes errors.Is(err, ErrPeer) true.
func (e *PeerError) Unwrap() error { return ErrPeer }

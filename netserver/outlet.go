package netserver

import (
	"errors"
	"sync"
	"time"

	"junction/direct"
	"junction/ipc"
)

// txQueue is what frames leave through: direct.Queue or *ipc.End.
type txQueue interface {
	Transmit(hdr *[ipc.VnetHdrLen]byte, parts [][]byte) error
	Flush() error
	TransmitWait() error
}

// roomWaiter is a txQueue that can be waited for while others use it: *ipc.End.
type roomWaiter interface {
	TxPrepareWait() bool
	TxSleep(until time.Time) error
	TxFinishWait() error
}

// outlet is the transmit side of an uplink queue or of a ring, which all
// workers share. Workers of instances take turns at its gate, so that each gets
// its share. Whoever uses the queue holds mu, for a run of frames; who waits for
// room in a ring does not.
type outlet struct {
	gate gate

	mu     sync.Mutex
	q      txQueue    // used with mu held
	room   roomWaiter // of a ring: q; one at a time waits, who has the gate's turn
	uplink bool
	id     uint32 // of the instance; 0 for the uplink
	index  int    // of the uplink queue
	tap    *tapPoint
	stuck  bool // a ring that was waited for in vain, and has taken nothing since; with mu held
}

// Why an outlet does not take a frame.
func (o *outlet) why(err error) reason {
	switch {
	case errors.Is(err, direct.ErrTooLong), errors.Is(err, ipc.ErrTooLong):
		return dropLong
	case errors.Is(err, direct.ErrBadFrame), errors.Is(err, ipc.ErrBadFrame):
		return dropShort
	case errors.Is(err, direct.ErrBadHeader):
		return dropVnet
	case errors.Is(err, ipc.ErrFull):
		return dropRingFull
	case errors.Is(err, direct.ErrFull):
		return dropUplinkFull
	case o.uplink:
		return dropUplinkError
	}
	return dropRingGone
}

// transmit gives one frame to the queue.
func (o *outlet) transmit(hdr *[ipc.VnetHdrLen]byte, parts [][]byte) error {
	err := o.q.Transmit(hdr, parts)
	if !full(err) {
		o.stuck = false
		return err
	}
	if ferr := o.q.Flush(); ferr != nil && !full(ferr) {
		return ferr
	}
	return o.q.Transmit(hdr, parts)
}

// flush makes the queue send. What a full device has not taken yet, the next
// flush offers again; with patient, it is waited for.
func (o *outlet) flush(patient bool) {
	for full(o.q.Flush()) && patient {
		if o.q.TransmitWait() != nil {
			return
		}
	}
}

func full(err error) bool { return errors.Is(err, direct.ErrFull) || errors.Is(err, ipc.ErrFull) }

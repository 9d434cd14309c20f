package netserver

import (
	"errors"
	"sync"

	"junction/direct"
	"junction/ipc"
)

// txQueue is what frames leave through: direct.Queue or *ipc.End.
type txQueue interface {
	Transmit(hdr *[ipc.VnetHdrLen]byte, parts [][]byte) error
	Flush() error
	TransmitWait() error
}

// outlet is the transmit side of an uplink queue or of a ring, which all
// workers share: a worker holds it while it has frames for it, and takes it
// once for a run of them.
type outlet struct {
	mu     sync.Mutex
	q      txQueue // used with mu held
	uplink bool
	id     uint32 // of the instance; 0 for the uplink
	tap    *tapPoint
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

// put gives one frame to the queue. With patient, a full one is waited for.
func (o *outlet) put(hdr *[ipc.VnetHdrLen]byte, parts [][]byte, patient bool) reason {
	err := o.q.Transmit(hdr, parts)
	for full(err) {
		if ferr := o.q.Flush(); ferr != nil && !full(ferr) {
			return o.why(ferr)
		}
		if err = o.q.Transmit(hdr, parts); !full(err) || !patient {
			break
		}
		if werr := o.q.TransmitWait(); werr != nil {
			return o.why(werr)
		}
	}
	if err != nil {
		return o.why(err)
	}
	return dropNone
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

package monitor

import (
	"context"

	"junction/direct"
	"junction/direct/steer"
	"junction/direct/steer/scope"
)

// fabric is the switch at the NIC, steer.Uplink, as far as a mode switch needs it.
type fabric interface {
	// NewQueue makes a queue, for these of the owner's ports or with nil for all.
	NewQueue(ctx context.Context, owner uint32, ports *scope.Ports) (directQueue, error)
	// QueueOf returns the queue that an instance has, nil without one.
	QueueOf(owner uint32) directQueue
	Stamp(owner uint32, tag uint8) error
	// SteerTo sends an instance's frames to its queue, or with nil to the server.
	SteerTo(owner uint32, q directQueue) error
}

// directQueue is an instance's own queue: steer.VF.
type directQueue interface {
	Export() (direct.Export, []int)
	Ports() *scope.Ports
	Probe(frame []byte) error
	Stats() (steer.VFStats, error)
	// Devices are the numbers of what the queue is of no use without; 0 is gone.
	Devices() []int
	Close() error
}

// steering is the fabric of an uplink.
type steering struct{ *steer.Uplink }

// NewQueue implements fabric.
func (s steering) NewQueue(ctx context.Context, owner uint32, ports *scope.Ports) (directQueue, error) {
	v, err := s.NewVF(ctx, owner, ports)
	if err != nil {
		return nil, err // not v: a nil pointer in an interface is not nil
	}
	return v, nil
}

// SteerTo implements fabric.
func (s steering) SteerTo(owner uint32, q directQueue) error {
	v, _ := q.(*steer.VF)
	return s.Steer(owner, v)
}

// QueueOf implements fabric.
func (s steering) QueueOf(owner uint32) directQueue {
	if v := s.Of(owner); v != nil {
		return v
	}
	return nil
}

// fabric returns what steers frames. Error: direct.ErrUnsupported.
func (m *Monitor) fabric() (fabric, error) {
	if m.opts.fabric != nil {
		return m.opts.fabric, nil
	}
	u, err := m.uplink.steering()
	if err != nil {
		return nil, err
	}
	return steering{u}, nil
}

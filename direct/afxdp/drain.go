package afxdp

import "net"

// Drained tells whether the kernel has finished with all that was flushed: in
// copy mode it has left for whatever is behind the NIC. It belongs to the
// transmit side. Error: net.ErrClosed.
func (q *Queue) Drained() (bool, error) {
	if q.life.Closed() {
		return false, net.ErrClosed
	}
	return q.t.reclaim() == len(q.t.chunks.kernel), nil
}

// DrainWait blocks until more of it has been finished with, Wake is called, or
// the queue is closed: net.ErrClosed.
func (q *Queue) DrainWait() error {
	if err := q.life.Enter(); err != nil {
		return err
	}
	defer q.life.Leave()
	return q.awaitTransmit(-1)
}

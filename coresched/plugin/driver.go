package plugin

import (
	"errors"
	"fmt"

	cs "junction/coresched"
	"junction/ipc"
)

// Driver connects an enclave with a policy at the other end of a ring pair.
// One goroutine calls its methods, and has the Machine during Step and Close.
// Wake may be called from anywhere.
type Driver struct {
	enclave *cs.Enclave
	end     *ipc.End
	agents  []cs.CPU
	perCPU  bool
	cores   int // of the enclave

	messages []cs.Message
	held     int // messages that did not fit into the ring
	frame    []byte
	frames   [][]byte
	txns     []cs.Txn
	snapshot []cs.Message // what is left of a rescan
	synced   []cs.Seq     // of the agents, when it was made
	starting bool
	answer   []byte // to the last batch
	owed     int    // bytes of answer that are to be sent
	parts    [1][]byte
	full     bool // something found no room
	sent     uint32
	ping     [headerSize]byte
	stats    Stats
}

// Stats are what a Driver has carried.
type Stats struct {
	Messages uint64 `json:"messages"`
	Batches  uint64 `json:"batches"`
	Rescans  uint64 `json:"rescans"`
}

// NewDriver attaches the policy with these traits, at the other end of end, to
// the enclave. end is the server's side, and the Driver's from then on.
func NewDriver(now cs.Time, e *cs.Enclave, end *ipc.End, traits cs.Traits) (*Driver, error) {
	if err := e.Attach(now, traits.PerCPU); err != nil {
		return nil, errors.Join(err, end.Close())
	}
	cpus := e.CPUs()
	d := &Driver{
		enclave: e, end: end, perCPU: traits.PerCPU, cores: cpus.Len(), agents: []cs.CPU{cs.NoCPU},
		messages: make([]cs.Message, perFrame), frames: make([][]byte, 64),
		frame: make([]byte, headerSize+max(perFrame*messageSize, setSize+4*cs.MaxCPUs)),
		txns:  make([]cs.Txn, 0, cs.MaxCPUs), answer: make([]byte, headerSize+cs.MaxCPUs),
	}
	if d.perCPU {
		d.agents = d.agents[:0]
		for c := cpus.Next(0); c != cs.NoCPU; c = cpus.Next(c + 1) {
			d.agents = append(d.agents, c)
		}
	}
	return d, nil
}

// Stats returns what was carried so far.
func (d *Driver) Stats() Stats { return d.stats }

// Close detaches the policy from the enclave.
func (d *Driver) Close(now cs.Time) error {
	d.enclave.Detach(now)
	return d.end.Close()
}

// Wait blocks until there may be something for Step to do, or Wake is called.
// Its error says that there never will.
func (d *Driver) Wait() error {
	if d.full {
		return d.end.TransmitWait()
	}
	return d.end.Wait()
}

// Wake ends a Wait.
func (d *Driver) Wake() { d.end.Wake() }

// Step commits what the policy has sent and sends what it has to know. It does
// not block; what finds no room in the ring goes with a later Step. An error
// means that the policy is gone or broken: Close, and start another.
func (d *Driver) Step(now cs.Time) error {
	for {
		n, err := d.end.Receive(d.frames)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		for _, f := range d.frames[:n] {
			if err := d.commit(now, f); err != nil {
				return err
			}
		}
		d.end.Release()
	}
	err := d.send(now)
	d.full = errors.Is(err, ipc.ErrFull)
	if err != nil && !d.full {
		return err
	}
	return d.end.Flush()
}

// commit does what one frame asks for, and answers.
func (d *Driver) commit(now cs.Time, frame []byte) error {
	h, body, err := parse(frame)
	if err != nil {
		return err
	}
	if h.kind != kindBatch || d.owed > 0 {
		return fmt.Errorf("%w: kind %d from a policy that waits for %d bytes of results", ErrFrame, h.kind, d.owed)
	}
	if h.count > d.cores { // nobody else has the Machine meanwhile
		return fmt.Errorf("%w: a batch of %d transactions for %d cores", ErrFrame, h.count, d.cores)
	}
	d.txns = d.txns[:0]
	for range h.count {
		d.txns = append(d.txns, getTxn(body))
		body = body[txnSize:]
	}
	if h.group == cs.Sync {
		d.enclave.CommitSync(now, h.agent, d.txns)
	} else {
		d.enclave.Commit(now, h.agent, d.txns)
	}
	d.stats.Batches++
	a := header{kind: kindResults, count: len(d.txns), id: h.id}
	a.put(d.answer)
	for i := range d.txns {
		d.answer[headerSize+i] = byte(d.txns[i].Result)
	}
	d.owed = headerSize + len(d.txns)
	return nil
}

// Progress tells how far the policy has read what it was sent: read is a number
// that changes when it has read more, all says that it has read all. To be called
// by who has the Machine.
func (d *Driver) Progress() (read uint64, all bool, err error) {
	if d.full { // then Wait has the ring, and nothing is sent before more is read
		return 1<<32 | uint64(d.sent), false, nil
	}
	if all, err = d.end.Drained(); err != nil {
		return 0, false, err
	}
	released, err := d.end.Released()
	return uint64(released), all, err
}

// Ping gives the policy something to read, unless there is plenty. To be called
// by who has the Machine.
func (d *Driver) Ping() error {
	if d.full {
		return nil
	}
	h := header{kind: kindPing}
	h.put(d.ping[:])
	if err := d.transmit(d.ping[:]); err != nil && !errors.Is(err, ipc.ErrFull) {
		return err
	}
	return d.end.Flush()
}

func (d *Driver) transmit(b []byte) error {
	d.parts[0] = b
	err := d.end.Transmit(nil, d.parts[:])
	if err == nil {
		d.sent++
	}
	return err
}

// send sends messages as long as there is room.
func (d *Driver) send(now cs.Time) error {
	if d.owed > 0 {
		if err := d.transmit(d.answer[:d.owed]); err != nil {
			return err
		}
		d.owed = 0
	}
	if d.starting {
		if err := d.sendSnapshot(); err != nil {
			return err
		}
	}
	if d.held > 0 {
		if err := d.sendMessages(kindMessages, d.messages[:d.held]); err != nil {
			return err
		}
		d.held = 0
	}
	for _, c := range d.agents {
		for d.enclave.Waiting(c) {
			n, err := d.enclave.Receive(c, d.messages)
			if err != nil {
				d.rescan(now)
				return d.send(now)
			}
			if err := d.sendMessages(kindMessages, d.messages[:n]); err != nil {
				d.held = n
				return err
			}
		}
	}
	return nil
}

func (d *Driver) rescan(now cs.Time) {
	d.snapshot = d.enclave.Rescan(now, d.snapshot[:0])
	d.synced = d.synced[:0]
	for c := range cs.CPU(len(d.agents)) {
		d.synced = append(d.synced, d.enclave.AgentSeq(d.agents[c]))
	}
	d.starting, d.held = true, 0
	d.stats.Rescans++
}

// sendSnapshot goes on with what a rescan found. What happens meanwhile is in
// the queues, and comes after it.
func (d *Driver) sendSnapshot() error {
	for len(d.snapshot) > 0 {
		n := min(len(d.snapshot), perFrame)
		if err := d.sendMessages(kindSnapshot, d.snapshot[:n]); err != nil {
			return err
		}
		d.snapshot = d.snapshot[n:]
	}
	h := header{kind: kindStart, count: len(d.synced)}
	h.put(d.frame)
	cpus := d.enclave.CPUs()
	putSet(d.frame[headerSize:], &cpus)
	for c := range h.count {
		order.PutUint32(d.frame[headerSize+setSize+4*c:], uint32(d.synced[c]))
	}
	if err := d.transmit(d.frame[:headerSize+setSize+4*h.count]); err != nil {
		return err
	}
	d.starting = false
	return nil
}

func (d *Driver) sendMessages(k kind, all []cs.Message) error {
	h := header{kind: k, count: len(all)}
	h.put(d.frame)
	for i := range all {
		putMessage(d.frame[headerSize+i*messageSize:], &all[i])
	}
	if err := d.transmit(d.frame[:headerSize+len(all)*messageSize]); err != nil {
		return err
	}
	d.stats.Messages += uint64(len(all))
	return nil
}

package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
	corepage "junction/coresched/instance"
	"junction/coresched/live"
	"junction/internal/monitor/wire"
	"junction/ipc/control"
)

// SchedResult is an enclave after an order, and for how long a change of policy
// left it without one.
type SchedResult struct {
	live.EnclaveStatus
	BlackoutUS float64 `json:"blackout_us,omitempty"`
}

// SchedTop is all enclaves and all threads in them.
type SchedTop struct {
	Enclaves []live.EnclaveStatus `json:"enclaves"`
	Threads  []live.ThreadStatus  `json:"threads"`
	// Instances are those whose kthreads are tasks of an enclave.
	Instances []live.InstanceStatus `json:"instances"`
}

// scheduler is core scheduling, from the first enclave on.
type scheduler struct {
	mu sync.Mutex
	// +checklocks:mu
	actuator *live.Actuator
	// +checklocks:mu
	closed bool
	// resumed is closed when what a monitor that died left is there again.
	resumed chan struct{}
}

// errNoSched is for orders that need an enclave when there is none.
var errNoSched = fmt.Errorf("%w: there is none yet; junction_ctl sched enclave create makes one", live.ErrEnclave)

// get returns the actuator, or nil if there is none yet.
func (s *scheduler) get() *live.Actuator {
	<-s.resumed
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.actuator
}

// resume has the enclaves of a monitor that died.
func (s *scheduler) resume(o live.Options) {
	defer close(s.resumed)
	if !live.Left(o.State) {
		return
	}
	a, err := s.start(o)
	if err == nil {
		err = a.Resume()
	}
	if err != nil {
		o.Logger.Warn("enclaves of the monitor before are lost", "error", err)
	}
}

// need starts the actuator if there is none.
func (s *scheduler) need(o live.Options) (*live.Actuator, error) {
	<-s.resumed
	return s.start(o)
}

func (s *scheduler) start(o live.Options) (*live.Actuator, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, live.ErrClosed
	}
	if s.actuator != nil {
		return s.actuator, nil
	}
	a, err := live.New(o)
	if err != nil {
		return nil, err
	}
	s.actuator = a
	return a, nil
}

// close gives all threads back what they had.
func (s *scheduler) close() error {
	s.mu.Lock()
	a := s.actuator
	s.actuator, s.closed = nil, true
	s.mu.Unlock()
	if a == nil {
		return nil
	}
	return a.Close()
}

// schedLook answers questions about core scheduling, which anybody may ask.
func (m *Monitor) schedLook() (any, error) {
	top := SchedTop{Enclaves: []live.EnclaveStatus{}, Threads: []live.ThreadStatus{}, Instances: []live.InstanceStatus{}}
	if x := m.sched.get(); x != nil {
		top.Enclaves, top.Threads, top.Instances = x.Enclaves(), x.Threads(), x.Instances()
	}
	return top, nil
}

// schedOrder does what root wants of core scheduling.
func (m *Monitor) schedOrder(ctx context.Context, peer control.Peer, a wire.Ask) (any, error) {
	var o wire.Sched
	if err := json.Unmarshal(a.Args, &o); err != nil {
		return nil, fmt.Errorf("%w: %w", err, unix.EINVAL)
	}
	if a.Verb == wire.SchedCreate {
		return m.schedCreate(&o)
	}
	x := m.sched.get()
	if x == nil {
		return nil, errNoSched
	}
	result := SchedResult{}
	var err error
	switch a.Verb {
	case wire.SchedDestroy:
		return result, x.Destroy(o.Enclave)
	case wire.SchedPush:
		err = x.Push(o.Enclave, o.TIDs)
	case wire.SchedJoin:
		err = m.schedJoin(ctx, peer, x, &o)
	case wire.SchedPolicy:
		var blackout time.Duration
		blackout, err = x.SetPolicyWithin(o.Enclave, o.Policy, o.Args, time.Duration(o.StartTimeoutUS)*time.Microsecond)
		result.BlackoutUS = float64(blackout) / float64(time.Microsecond)
	}
	if err == nil {
		result.EnclaveStatus, err = x.Enclave(o.Enclave)
	}
	return result, err
}

// unshared returns unix.EBUSY for an instance that is in an enclave. It has to be known
// before it is asked: for another page it gives up the one that it has.
func (i *instance) unshared(all []live.InstanceStatus) error {
	for _, in := range all {
		if in.PID == int(i.peer.PID) {
			return fmt.Errorf("instance %q is in enclave %q; to have it in another, destroy that first: %w", i.name, in.Enclave, unix.EBUSY)
		}
	}
	return nil
}

// rejoinEnclave has an instance that came back be in the enclave that it was in.
func (m *Monitor) rejoinEnclave(ctx context.Context, i *instance) {
	x := m.sched.get()
	if x == nil {
		return
	}
	enclave, ok := x.Awaited(int(i.peer.PID))
	if !ok {
		return
	}
	if err := m.schedJoin(ctx, control.Peer{}, x, &wire.Sched{Enclave: enclave, ID: uint32(i.id)}); err != nil {
		m.opts.Logger.Warn("instance is not in its enclave again", "id", i.id, "name", i.name, "enclave", enclave, "error", err)
	}
}

// schedJoin has an instance share its page, and makes its kthreads tasks of an
// enclave.
func (m *Monitor) schedJoin(ctx context.Context, peer control.Peer, x *live.Actuator, o *wire.Sched) error {
	if _, err := x.Enclave(o.Enclave); err != nil {
		return err
	}
	i, err := m.find(o.ID)
	if err != nil {
		return err
	}
	if err := i.unshared(x.Instances()); err != nil {
		return err
	}
	args, err := json.Marshal(wire.Target{ID: o.ID})
	if err != nil {
		return err
	}
	giver, files, err := corepage.NewGiver(math.MaxInt32)
	if err != nil {
		return err
	}
	var want wire.CoresWanted
	answer, err := m.askInstance(ctx, peer, wire.Ask{Verb: wire.Cores, Args: args}, files[:]...)
	if err == nil {
		err = json.Unmarshal(answer, &want)
	}
	if err == nil {
		class := cs.LatencyCritical
		if want.BestEffort {
			class = cs.BestEffort
		}
		err = x.Join(o.Enclave, giver, live.InstanceOptions{
			Name: i.name, PID: int(i.peer.PID), Kthreads: want.Kthreads, Spinning: want.Spinning,
			Guaranteed: want.Guaranteed, Class: class, Delay: min(want.Delay, cs.MaxDelay),
		})
	}
	if err != nil {
		return errors.Join(fmt.Errorf("instance %q: %w", i.name, err), giver.Close())
	}
	return nil
}

// longestTimeout is the longest runnable timeout of an enclave.
const longestTimeout = 24 * time.Hour

func (m *Monitor) schedCreate(o *wire.Sched) (any, error) {
	cpus, err := cs.ParseCPUSet(o.CPUs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, unix.EINVAL)
	}
	if o.RunnableTimeoutUS < 0 || o.RunnableTimeoutUS > longestTimeout.Microseconds() {
		return nil, fmt.Errorf("a runnable timeout of %d µs; take 0, which is never, to %v: %w", o.RunnableTimeoutUS, longestTimeout, unix.EINVAL)
	}
	x, err := m.sched.need(m.opts.Sched)
	if err != nil {
		return nil, err
	}
	if err := x.Create(o.Enclave, cpus, time.Duration(o.RunnableTimeoutUS)*time.Microsecond); err != nil {
		return nil, err
	}
	if o.Exclusive {
		if err := x.Keep(o.Enclave); err != nil {
			return nil, errors.Join(err, x.Destroy(o.Enclave))
		}
	}
	s, err := x.Enclave(o.Enclave)
	return SchedResult{EnclaveStatus: s}, err
}

package coresched

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrCPU: a core that does not exist, or is another enclave's.
	ErrCPU = errors.New("core cannot be used")
	// ErrTask: a task that does not exist, or is not in this enclave.
	ErrTask = errors.New("no such task in this enclave")
	// ErrState: an event that cannot happen to a task in its state.
	ErrState = errors.New("task is in another state")
	// ErrFull: there are MaxTasks already.
	ErrFull = errors.New("too many tasks")
	// ErrOverflow: messages were lost; Rescan.
	ErrOverflow = errors.New("messages were lost")
	// ErrAttached: the enclave has a policy already.
	ErrAttached = errors.New("enclave has a policy")
	// ErrDestroyed: the enclave was destroyed.
	ErrDestroyed = errors.New("enclave was destroyed")
)

// Machine is all cores and all tasks that are scheduled here. It and its
// enclaves are for one goroutine at a time.
type Machine struct {
	cpus    []cpuState
	tasks   []taskState // by Task; the first is nobody's
	free    []Task
	actions []Action
}

type cpuState struct {
	enclave *Enclave
	running Task
	offline bool
	busy    bool
	since   Time // usable
}

func (s *cpuState) usable() bool { return !s.offline && !s.busy }

// state is how a task stands.
type state uint8

const (
	absent state = iota // its slot is free
	blocked
	runnable
	onCPU
)

type taskState struct {
	enclave *Enclave
	state   state
	seq     Seq
	cpu     CPU  // where it is, or was last
	home    CPU  // whose agent hears of it
	since   Time // in this state
	runtime Time // up to since
	waited  Time // for a core, up to since
	pinned  bool // allowed holds
	allowed CPUSet
	hints   Hints
}

// NewMachine returns a machine with cores 0 to n-1, n from 1 to MaxCPUs.
func NewMachine(n int) (*Machine, error) {
	if n < 1 || n > MaxCPUs {
		return nil, fmt.Errorf("%w: a machine of %d cores; take 1 to %d", ErrCPU, n, MaxCPUs)
	}
	m := &Machine{cpus: make([]cpuState, n), tasks: make([]taskState, 1, 64)}
	return m, nil
}

// CPUs returns the number of cores.
func (m *Machine) CPUs() int { return len(m.cpus) }

// Running returns the task that has core c, or NoTask.
func (m *Machine) Running(c CPU) Task { return m.cpus[c].running }

// Actions returns what is to be done since the last call, valid until the next
// call on the Machine or one of its enclaves.
func (m *Machine) Actions() []Action {
	a := m.actions
	m.actions = m.actions[:0]
	return a
}

func (m *Machine) act(kind ActionKind, c CPU, t Task) {
	m.actions = append(m.actions, Action{kind, c, t})
}

func (m *Machine) has(c CPU) bool { return c >= 0 && int(c) < len(m.cpus) }

// task returns t's state, or nil if there is no such task.
func (m *Machine) task(t Task) *taskState {
	if t == NoTask || int(t) >= len(m.tasks) || m.tasks[t].state == absent {
		return nil
	}
	return &m.tasks[t]
}

// slot returns a free slot for a new task of e. A slot stays its enclave's, and
// with its home, until the enclave ends: so one queue has all messages about it,
// in their order.
func (m *Machine) slot(e *Enclave) (Task, error) {
	if t, ok := pop(&e.free); ok {
		return t, nil
	}
	if t, ok := pop(&m.free); ok {
		m.tasks[t].home = e.home()
		return t, nil
	}
	if len(m.tasks) > MaxTasks {
		return NoTask, fmt.Errorf("%w: %d", ErrFull, MaxTasks)
	}
	m.tasks = append(m.tasks, taskState{home: e.home()})
	return Task(len(m.tasks) - 1), nil
}

func pop(s *[]Task) (t Task, ok bool) {
	n := len(*s)
	if n == 0 {
		return NoTask, false
	}
	t, *s = (*s)[n-1], (*s)[:n-1]
	return t, true
}

// SetCPU says whether core c is online, and whether something that no policy
// can push off uses it. A task that has the core loses it if it cannot go on.
func (m *Machine) SetCPU(now Time, c CPU, online, busy bool) error {
	if !m.has(c) {
		return fmt.Errorf("%w: %d of %d", ErrCPU, c, len(m.cpus))
	}
	s := &m.cpus[c]
	was := s.usable()
	s.offline, s.busy = !online, busy
	usable := s.usable()
	if usable && !was {
		s.since = now
	}
	if s.enclave == nil || was == usable {
		return nil
	}
	if usable {
		s.enclave.tellCPU(now, CPUAvailable, c)
		return nil
	}
	s.enclave.takeOff(now, c)
	s.enclave.tellCPU(now, CPUBusy, c)
	return nil
}

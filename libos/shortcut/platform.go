package shortcut

import (
	"sync"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/mm"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// Platform is a platform whose threads serve system calls themselves. Its
// methods may be called at any time.
type Platform struct {
	platform.Platform
	served *served

	mu sync.Mutex
	// threads are those not released yet. +checklocks:mu
	threads map[*thread]struct{}
	// past counts the calls of those that are. +checklocks:mu
	past Stats
}

// Stats counts the system calls of all programs so far.
type Stats struct {
	// Calls is how many there were, and Served how many of them did not need
	// the task loop.
	Calls, Served uint64
}

// Serve returns inner with threads that serve system calls themselves.
func Serve(inner platform.Platform) (*Platform, error) {
	if err := findFields(); err != nil {
		return nil, err
	}
	return &Platform{Platform: inner, served: findCalls(), threads: make(map[*thread]struct{})}, nil
}

// Inner returns the platform that executes programs.
func (p *Platform) Inner() platform.Platform { return p.Platform }

// Stats returns how many system calls there have been.
func (p *Platform) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.past
	for t := range p.threads {
		s.add(t.counts())
	}
	return s
}

func (s *Stats) add(more Stats) { s.Calls, s.Served = s.Calls+more.Calls, s.Served+more.Served }

// NewContext implements platform.Platform.NewContext.
func (p *Platform) NewContext(ctx context.Context) platform.Context {
	t := &thread{Context: p.Platform.NewContext(ctx), p: p}
	t.inner, _ = t.Context.(forgetter)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.threads[t] = struct{}{}
	return t
}

// thread implements platform.Context.
type thread struct {
	platform.Context
	inner forgetter // Context, if it is one
	p     *Platform
	// task is whose thread it is, once it has executed.
	task  taskFields
	stats Stats
}

// forgetter is a context that can be told that the task loop has seen to what
// it was interrupted for.
type forgetter interface{ Forget() }

// counts reads the thread's counts from another. The owner writes them without
// synchronization: a reader sees a count of a moment ago, in one piece as
// 64-bit machines have it.
//
//go:norace
func (t *thread) counts() Stats { return t.stats }

// Release implements platform.Context.Release.
func (t *thread) Release() {
	t.p.mu.Lock()
	t.p.past.add(t.stats)
	delete(t.p.threads, t)
	t.p.mu.Unlock()
	t.Context.Release()
}

// Switch implements platform.Context.Switch. It returns when there is something
// that the task loop has to see to.
func (t *thread) Switch(ctx context.Context, m platform.MemoryManager, ac *arch.Context64, cpu int32) (*linux.SignalInfo, hostarch.AccessType, error) {
	if t.task.Task == nil {
		task, ok := ctx.(*kernel.Task)
		if !ok {
			return t.Context.Switch(ctx, m, ac, cpu)
		}
		t.task = fieldsOf(task)
	}
	// Whoever interrupts a task tells the task first and then its thread.
	if t.inner != nil {
		t.inner.Forget()
	}
	if t.task.interrupted() {
		return nil, hostarch.NoAccess, platform.ErrContextInterrupt
	}
	for {
		info, at, err := t.Context.Switch(ctx, m, ac, cpu)
		next := back
		switch {
		case err == nil:
			t.stats.Calls++
			next = t.call(ac)
		case err == platform.ErrContextSignal && at.Any(): //nolint: a sentinel that is never wrapped
			next = t.fault(m.(*mm.MemoryManager), ac, hostarch.Addr(info.Addr()), at)
		}
		switch {
		case next == back:
			return info, at, err
		case next == interrupted || t.task.interrupted():
			return nil, hostarch.NoAccess, platform.ErrContextInterrupt
		}
	}
}

// next is what comes after what Switch came back with.
type next int

const (
	back        next = iota // the task loop sees to it
	again                   // the program goes on, unless there is a signal
	interrupted             // the task loop continues as after an interrupt
)

// fault handles a page fault, if it can.
func (t *thread) fault(m *mm.MemoryManager, ac *arch.Context64, addr hostarch.Addr, at hostarch.AccessType) next {
	t.task.leaveProgram()
	err := m.HandleUserFault(t.task.Task, addr, at, hostarch.Addr(ac.Stack()))
	t.task.enterProgram()
	if err != nil {
		return back // which tries once more and raises the signal
	}
	return again
}

// call executes the system call that the registers ask for, if it is one that is served.
func (t *thread) call(ac *arch.Context64) next {
	nr := ac.SyscallNo()
	if nr >= uintptr(len(t.p.served)) || !t.p.served[nr] {
		return back
	}
	task, table := t.task.Task, t.task.SyscallTable()
	if table.FeatureEnable.Word(nr) != onlyPresent || task.Tracer() != nil || task.SeccompMode() != linux.SECCOMP_MODE_NONE {
		return back
	}
	t.stats.Served++
	t.task.leaveProgram()
	ac.SyscallSaveOrig() // arm64 restarts calls by it
	value, ctrl, err := table.Lookup(nr)(task, nr, ac.SyscallArgs())
	restarts := false
	switch {
	case ctrl != nil: // there is no result
	case err != nil:
		ac.SetReturn(uintptr(-kernel.ExtractErrno(err, int(nr))))
		if _, restarts = linuxerr.SyscallRestartErrorFromReturn(ac.Return()); restarts {
			t.task.setRestart(err)
		}
	default:
		ac.SetReturn(value)
	}
	t.task.enterProgram()
	if restarts {
		return interrupted
	}
	return again
}

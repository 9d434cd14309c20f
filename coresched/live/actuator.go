package live

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/coresched/hints"
	"junction/coresched/plugin"
)

// Options are an actuator's parameters.
type Options struct {
	// Guard is the command line of a program that calls Guard.
	Guard []string
	// Policy is the command line of a program that serves the policy whose name
	// and parameters are added.
	Policy []string
	// Cpusets is the folder of the cpuset (cgroup v1) whose tasks are kept off
	// exclusive cores. Default: the one that this process lies in.
	Cpusets string
	// State is a file where a successor finds what it needs, should this actuator
	// die (Resume). Policies then wait for it. Default: none.
	State string
	// Logger receives what happens. Default: discarded.
	Logger *slog.Logger
}

// Errors that callers tell apart with errors.Is.
var (
	// ErrEnclave: no enclave of this name, or there is one already.
	ErrEnclave = errors.New("no such enclave")
	// ErrName: what no enclave can be called.
	ErrName = errors.New("not a name for an enclave")
	// ErrExists: there is an enclave of this name.
	ErrExists = errors.New("enclave exists")
	// ErrClosed: the actuator has ended.
	ErrClosed = errors.New("core scheduling has ended")
)

// formerKept is for how many comparisons those that left are remembered at least.
const formerKept = 50

// Actuator schedules threads of this machine. Its methods may be called from
// any goroutine.
type Actuator struct {
	opts Options

	mu sync.Mutex
	// +checklocks:mu
	machine *cs.Machine
	// +checklocks:mu
	enclaves map[string]*enclave
	// +checklocks:mu
	threads map[int]*member // by thread number
	// +checklocks:mu
	members map[cs.Task]*member
	// former are threads that have left, for events of theirs that are still on
	// their way; elder those that left before.
	// +checklocks:mu
	former, elder map[int]original
	// +checklocks:mu
	formerAge int
	// +checklocks:mu
	changed []*member // carryOut's
	// +checklocks:mu
	checked int // the last thread whose scheduling was compared
	// +checklocks:mu
	closed bool
	// +checklocks:mu
	lost uint64 // events, as of the last resync
	// +checklocks:mu
	instances instances
	// +checklocks:mu
	programs map[int]*program // by process number
	// +checklocks:mu
	tables int // of hints, in use

	// +checklocks:mu
	guard *guard
	// +checklocks:mu
	keeper *keeper // from the first exclusive enclave on
	// +checklocks:mu
	keeping int // cores of so many enclaves, or they are being given back

	groups *groups // nil: none here
	// +checklocks:mu
	groupsMade uint64

	// +checklocks:mu
	awaited map[int]instanceRecord // of the actuator before, by process number
	// +checklocks:mu
	resuming bool
	// +checklocks:mu
	changes bool // that the record does not have

	saving sync.Mutex // taken before mu
	// +checklocks:saving
	saveAt time.Time

	orders  sync.Mutex // that keep cores: one at a time; taken before mu
	watch   *watcher
	helpers sync.WaitGroup
	done    chan struct{}
	stir    chan struct{} // there is a first thread
}

// enclave is a named enclave with its policy.
type enclave struct {
	name    string
	e       *cs.Enclave
	page    *plugin.Page
	timeout time.Duration
	process *plugin.Process
	driver  *plugin.Driver
	served  chan struct{} // closed when the policy's goroutine has ended
	// starting is how many policies are being started, which are given the page.
	starting  int
	destroyed bool
	// events counts what happened to policies here.
	entered, policies, crashes, handoffs uint64
	last                                 string // why the last policy ended

	reading     reading // of its policy
	standstills uint64
	left        uint64        // threads
	restored    time.Duration // how long it took to restore all threads, last
	dark        darkness      // of the last change of policy

	lent      int                // cores that latency-critical instances have
	borrowers map[*inst]struct{} // best effort that wants cores

	exclusive bool // its cores are kept for it,
	held      bool // at present
	staying   int  // tasks that could not be moved off them

	program  string // of the policy, as it was ordered
	args     []string
	began    uint64        // its process
	takeover time.Duration // without a policy when its actuator died
}

// member is a thread in an enclave.
type member struct {
	tid     int
	tgid    int
	started uint64
	comm    string
	task    cs.Task
	enclave *enclave
	original
	missing bool // it has ended, and nothing was on its way that tells
	adopted bool // its scheduling is ours now, and what we made it:
	class   uint32
	cores   cs.CPUSet

	program *program
	said    hints.Said // by its program, as last read
	awake   bool       // the kernel has it for one that can run
	woke    cs.Time
}

// New starts an actuator. It takes no thread and no core yet. It needs root.
func New(o Options) (*Actuator, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if len(o.Guard) == 0 || len(o.Policy) == 0 {
		return nil, errors.New("core scheduling: the programs of guard and policies are needed")
	}
	m, err := cs.NewMachine(min(machineCPUs(), cs.MaxCPUs))
	if err != nil {
		return nil, err
	}
	w, err := newWatcher()
	if err != nil {
		return nil, fmt.Errorf("core scheduling: %w", err)
	}
	g, err := o.startGuard(w)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("core scheduling: %w", err), w.close())
	}
	a := &Actuator{
		opts: o, machine: m, enclaves: map[string]*enclave{}, threads: map[int]*member{}, members: map[cs.Task]*member{},
		instances: instances{all: map[*inst]struct{}{}, kthreads: map[cs.Task]*kthread{}},
		former:    map[int]original{}, programs: map[int]*program{}, awaited: map[int]instanceRecord{}, watch: w, guard: g, done: make(chan struct{}),
		stir: make(chan struct{}, 1),
	}
	if a.groups, err = openGroups(); err != nil {
		o.Logger.Warn("best effort is only SCHED_IDLE; on Linux 6.6 and later others may wait for milliseconds", "error", err)
	} else if err := a.groups.sweep("/"); err != nil {
		o.Logger.Warn("remove CPU cgroups that a former monitor left", "error", err)
	}
	a.helpers.Go(a.heedEvents)
	a.helpers.Go(a.watchdog)
	return a, nil
}

// machineCPUs returns one more than the greatest number of a core that this
// process may see.
func machineCPUs() int {
	if b, err := os.ReadFile("/sys/devices/system/cpu/possible"); err == nil {
		if s, err := cs.ParseCPUSet(string(b[:max(0, len(b)-1)])); err == nil && !s.Empty() {
			last := cs.CPU(0)
			for c := s.Next(0); c != cs.NoCPU; c = s.Next(c + 1) {
				last = c
			}
			return int(last) + 1
		}
	}
	return runtime.NumCPU()
}

// Close destroys all enclaves and gives all threads back what they had.
func (a *Actuator) Close() error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil
	}
	a.closed = true
	names := []string{}
	for name := range a.enclaves {
		names = append(names, name)
	}
	a.mu.Unlock()
	errs := []error{a.unsave()}
	slices.Sort(names)
	for _, name := range names {
		errs = append(errs, a.destroy(name))
	}
	close(a.done)
	errs = append(errs, a.watch.reader.Flush()) // what has happened is heeded to the end
	a.helpers.Wait()
	g, _ := a.now()
	return errors.Join(append(errs, a.watch.close(), g.close(), a.groups.close())...)
}

func notInNames(r rune) bool {
	return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == utf8.RuneError
}

// Create makes an enclave of cores that belong to none yet. timeout is how long
// a thread may wait for a core before the policy is held to be broken; 0: for
// ever.
func (a *Actuator) Create(name string, cpus cs.CPUSet, timeout time.Duration) error {
	defer a.save()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closed:
		return ErrClosed
	case name == "" || len(name) > 64 || strings.ContainsFunc(name, notInNames):
		return fmt.Errorf("%w: %q; take 1 to 64 letters, digits and signs, without spaces", ErrName, name)
	case a.enclaves[name] != nil:
		return fmt.Errorf("%w: %q", ErrExists, name)
	}
	page, err := plugin.NewPage()
	if err != nil {
		return err
	}
	e, err := a.machine.NewEnclave(cpus, cs.EnclaveOptions{Board: page, RunnableTimeout: timeout})
	if err != nil {
		return errors.Join(err, page.Close())
	}
	a.enclaves[name] = &enclave{name: name, e: e, page: page, timeout: timeout, borrowers: map[*inst]struct{}{}}
	return nil
}

// Destroy ends an enclave: its threads are as they were before they were pushed.
func (a *Actuator) Destroy(name string) error {
	a.mu.Lock()
	closed := a.closed
	a.mu.Unlock()
	if closed {
		return ErrClosed
	}
	return a.destroy(name)
}

func (a *Actuator) destroy(name string) error {
	defer a.save()
	n, err := a.strike(name)
	if err != nil {
		return err
	}
	a.endPolicy(n, "enclave destroyed")
	return errors.Join(a.empty(n), a.giveCores(n))
}

// empty lets go of all that is in an enclave.
func (a *Actuator) empty(n *enclave) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.instances.all {
		if i.enclave == n {
			a.leave(i)
		}
	}
	n.e.Destroy(clock())
	a.carryOut()
	for tid, t := range a.threads {
		if t.enclave == n {
			a.forget(tid)
		}
	}
	n.destroyed = true
	return n.closePage()
}

// strike takes an enclave off the list.
func (a *Actuator) strike(name string) (*enclave, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.enclaves[name]
	if n == nil {
		return nil, fmt.Errorf("%w: %q", ErrEnclave, name)
	}
	delete(a.enclaves, name)
	return n, nil
}

// forget strikes a thread off the lists.
// +checklocks:a.mu
func (a *Actuator) forget(tid int) {
	t := a.threads[tid]
	a.leaveProgram(t.program)
	t.enclave.left++
	a.changes = true
	a.watch.drop(tid)
	delete(a.threads, tid)
	delete(a.members, t.task)
	a.former[tid] = t.original
	if err := a.guard.tell(&note{Give: tid}); err != nil {
		a.opts.Logger.Warn("the guard does not hear", "error", err)
	}
}

// Push brings threads into an enclave. It stops at the first that it cannot take.
func (a *Actuator) Push(name string, tids []int) error {
	defer a.save()
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.enclaves[name]
	if n == nil || a.closed {
		return fmt.Errorf("%w: %q", ErrEnclave, name)
	}
	var err error
	for _, tid := range tids {
		if err = a.push(n, tid); err != nil {
			break // those before it are in
		}
	}
	a.carryOut()
	n.wake()
	return err
}

// +checklocks:a.mu
func (a *Actuator) push(n *enclave, tid int) error {
	if tid <= 0 {
		return fmt.Errorf("%w: %d", ErrThread, tid)
	}
	s, err := readStat(tid)
	switch {
	case err != nil:
		return err
	case a.threads[tid] != nil:
		return fmt.Errorf("%w: %d is in enclave %q", ErrRefused, tid, a.threads[tid].enclave.name)
	case s.flags&kernelThread != 0:
		return fmt.Errorf("%w: %d (%s) is the kernel's", ErrRefused, tid, s.comm)
	case a.instanceOf(s.tgid) != nil:
		return fmt.Errorf("%w: %d (%s) is instance %q's, which is in an enclave as a whole", ErrRefused, tid, s.comm, a.instanceOf(s.tgid).Name)
	case a.own(s.tgid):
		return fmt.Errorf("%w: %d (%s) is needed to schedule", ErrRefused, tid, s.comm)
	case s.gone():
		return fmt.Errorf("%w: %d has ended", ErrThread, tid)
	}
	if err := a.needGuard(); err != nil {
		return err
	}
	o, err := a.admit(n, tid)
	if err != nil {
		return err
	}
	if err := a.enter(n, tid, &s, o); err != nil {
		return errors.Join(err, a.dismiss(tid))
	}
	return nil
}

// own tells whether a process is one of ours.
// +checklocks:a.mu
func (a *Actuator) own(pid int) bool {
	if pid == os.Getpid() || pid == a.guard.cmd.Process.Pid {
		return true
	}
	for _, n := range a.enclaves {
		if n.process != nil && n.process.PID() == pid {
			return true
		}
	}
	return false
}

// enter takes a thread. The guard hears of it before anything is changed.
// +checklocks:a.mu
func (a *Actuator) enter(n *enclave, tid int, s *stat, o original) error {
	if err := a.needGuard(); err != nil {
		return err
	}
	if err := a.guard.take(tid, s.started, &o, n.name); err != nil {
		return fmt.Errorf("%w: the guard does not hear: %w", ErrRefused, err)
	}
	if err := a.watch.add(tid); err != nil {
		return errors.Join(fmt.Errorf("watch thread %d: %w", tid, err), a.guard.tell(&note{Give: tid}))
	}
	canRun := true
	if again, err := readStat(tid); err == nil {
		canRun = again.canRun() // what happens from now on is told
	}
	a.watch.tell(tid, !canRun)
	t := &member{
		tid: tid, tgid: s.tgid, started: s.started, comm: s.comm, enclave: n, original: o,
		program: a.programOf(s.tgid), awake: canRun, woke: clock(),
	}
	task, err := n.e.Enter(clock(), canRun, t.hints())
	if err != nil {
		a.watch.drop(tid)
		a.leaveProgram(t.program)
		return errors.Join(err, a.guard.tell(&note{Give: tid}))
	}
	t.task = task
	a.threads[tid], a.members[task] = t, t
	n.entered++
	a.changes = true
	a.stands(t)
	a.stirUp()
	return nil
}

// stirUp has the watchdog look at once whether there is somebody to guard.
func (a *Actuator) stirUp() {
	select {
	case a.stir <- struct{}{}:
	default:
	}
}

// carryOut does to threads what the machine wants. A thread that others have
// changed meanwhile is looked at first.
// +checklocks:a.mu
func (a *Actuator) carryOut() {
	for actions := a.machine.Actions(); len(actions) > 0; actions = a.machine.Actions() {
		changed := a.changed[:0]
		for _, x := range actions {
			if k := a.instances.kthreads[x.Task]; k != nil {
				a.carryKthread(k, x)
				continue
			}
			m := a.members[x.Task]
			if m == nil {
				continue // it has ended
			}
			if x.Kind == cs.Run {
				m.enclave.handoffs++
			}
			if m.adopted && x.Kind != cs.Release && m.differs() {
				changed = append(changed, m)
				continue
			}
			a.carry(m, x)
		}
		a.changed = changed
		for _, m := range changed {
			a.heedOutside(m)
		}
	}
	a.publish()
}

// +checklocks:a.mu
func (a *Actuator) carry(m *member, x cs.Action) {
	var err error
	switch x.Kind {
	case cs.Adopt:
		m.adopted = true
		err = m.park()
	case cs.Stop:
		err = m.park()
	case cs.Run:
		err = m.run(x.CPU)
	case cs.Release:
		m.adopted = false
		err = m.restore(m.tid)
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		a.opts.Logger.Warn("thread cannot be scheduled", "thread", m.tid, "name", m.comm, "error", err)
	}
}

func (n *enclave) wake() {
	if n.driver != nil {
		n.driver.Wake()
	}
}

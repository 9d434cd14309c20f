package live

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

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
	// Online is the file that lists the cores that are online. Default: the kernel's.
	Online string
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
	pushed pushed // carryOut's
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

	// +checklocks:mu
	online *onlineCores

	cpuClock func(pid int) time.Duration // for audits

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

	online    *onlineCores       // the actuator's
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
		instances: instances{all: map[*inst]struct{}{}, kthreads: map[cs.Task]*kthread{}, audits: audits{over: map[*inst]struct{}{}}},
		former:    map[int]original{}, programs: map[int]*program{}, awaited: map[int]instanceRecord{}, watch: w, guard: g, done: make(chan struct{}),
		stir: make(chan struct{}, 1), cpuClock: cpuTime,
	}
	if a.groups, err = openGroups(); err != nil {
		o.Logger.Warn("best effort is only SCHED_IDLE; on Linux 6.6 and later others may wait for milliseconds", "error", err)
	} else if err := a.groups.sweep("/"); err != nil {
		o.Logger.Warn("remove CPU cgroups that a former monitor left", "error", err)
	}
	if a.online, err = openOnline(cmp.Or(o.Online, onlineFile), cs.FirstCPUs(m.CPUs())); err != nil {
		o.Logger.Warn("cores that go offline will not be noticed", "error", err)
	}
	a.heedCores()
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
	errs = append(errs, a.watch.close(), g.close(), a.groups.close(), a.online.close())
	return errors.Join(append(errs, a.unsave())...) // again: a guard may have written it that gave up meanwhile
}

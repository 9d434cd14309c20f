package sim

import (
	"bufio"
	"fmt"
	"math/rand/v2"

	cs "junction/coresched"
)

// Run simulates c.
func Run(c Config) (Result, error) {
	if err := c.check(); err != nil {
		return Result{}, err
	}
	w, err := newWorld(&c)
	if err != nil {
		return Result{}, err
	}
	if err := w.run(); err != nil {
		return Result{}, err
	}
	if w.trace.out != nil {
		if err := w.trace.out.Flush(); err != nil {
			return Result{}, fmt.Errorf("write the trace: %w", err)
		}
	}
	return w.result(), nil
}

// world is the state of a run.
type world struct {
	c         *Config
	now       cs.Time
	agenda    agenda
	machine   *cs.Machine
	enclave   *cs.Enclave
	agent     *cs.Agent
	traits    cs.Traits
	agents    []agentState // one, or one for each core
	cores     []core
	tasks     []task // by cs.Task
	instances []instance
	buf       []cs.Message
	trace     tracer

	ended, counted int
	short, long    Hist
	missed         int
	executed       cs.Time
	switching      cs.Time
	worked         cs.Time // by agents
}

// agentState is an agent between and in its rounds.
type agentState struct {
	active bool // a round goes on, or its beginning is in the agenda
	batch  cs.Batch
	until  cs.Time // its round goes on
	timer  uint32  // generation of the timer that counts
}

// core is a core as its task sees it.
type core struct {
	task    cs.Task
	starts  cs.Time // the task's first instruction, after a switch
	gen     uint32  // of the finish event that counts
	stopped cs.Time // when a task was last pushed off
	pushed  bool    // and it was
}

type task struct {
	instance int
	left     cs.Time // of the service time of its request
	job      Job
	arrived  cs.Time
	busy     bool // it has a request
	endless  bool
	thread   int // of its instance, from 1 on
}

type instance struct {
	Instance
	rng     *rand.Rand
	next    Job
	waiting []request // a queue, from head on
	head    int
	parked  []cs.Task
	runtime cs.Time
	threads int
	program *program
}

type request struct {
	job     Job
	arrived cs.Time
}

func newWorld(c *Config) (*world, error) {
	m, err := cs.NewMachine(c.Cores)
	if err != nil {
		return nil, err
	}
	e, err := m.NewEnclave(cs.FirstCPUs(c.Cores), cs.EnclaveOptions{QueueLen: max(c.QueueLen, 0)})
	if err != nil {
		return nil, err
	}
	w := &world{
		c: c, machine: m, enclave: e, agent: cs.NewAgent(c.Policy), traits: c.Policy.Traits(),
		cores: make([]core, c.Cores), tasks: make([]task, 1), instances: make([]instance, len(c.Instances)),
		buf: make([]cs.Message, 256),
	}
	w.agents = make([]agentState, 1)
	if w.traits.PerCPU {
		w.agents = make([]agentState, c.Cores)
	}
	if c.Trace != nil {
		w.trace.out = bufio.NewWriterSize(c.Trace, 1<<16)
	}
	if err := e.Attach(0, w.traits.PerCPU); err != nil {
		return nil, err
	}
	w.agent.Rescan(0, e)
	return w, w.populate()
}

// populate makes the instances and their first events.
func (w *world) populate() error {
	for i := range w.instances {
		in := &w.instances[i]
		in.Instance = w.c.Instances[i]
		in.Hints.Group = uint32(i + 1)
		if in.Hinted {
			var err error
			if in.program, err = newProgram(len(w.instances)); err != nil {
				return err
			}
		}
		in.rng = rand.New(rand.NewPCG(w.c.Seed, uint64(i)))
		for range in.Kthreads {
			t, err := w.enter(i, in.Source == nil)
			if err != nil {
				return err
			}
			in.parked = append(in.parked, t)
			w.tasks[t].endless = in.Source == nil
		}
		w.plan(i)
	}
	w.rouse()
	return nil
}

func (w *world) enter(i int, canRun bool) (cs.Task, error) {
	t, err := w.enclave.Enter(w.now, canRun, w.instances[i].Hints)
	if err != nil {
		return t, err
	}
	for int(t) >= len(w.tasks) {
		w.tasks = append(w.tasks, task{})
	}
	w.instances[i].threads++
	w.tasks[t] = task{instance: i, thread: w.instances[i].threads}
	return t, nil
}

// plan puts the next arrival at instance i into the agenda.
func (w *world) plan(i int) {
	in := &w.instances[i]
	if in.Source == nil {
		return
	}
	gap, j, ok := in.Source.Next(in.rng)
	if !ok {
		return
	}
	in.next = j
	w.agenda.put(w.now+max(gap, 0), arrival, i, 0)
}

func (w *world) run() error {
	for !w.over() {
		e, ok := w.agenda.take()
		if !ok {
			return nil
		}
		if w.c.Horizon > 0 && e.at > w.c.Horizon {
			w.now = w.c.Horizon
			return nil
		}
		w.now = e.at
		if err := w.happen(e); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) over() bool { return w.c.Requests > 0 && w.counted >= w.c.Requests }

func (w *world) happen(e event) error {
	var err error
	switch e.kind {
	case arrival:
		err = w.arrive(int(e.who))
	case finish:
		if e.gen == w.cores[e.who].gen {
			err = w.finish(int(e.who))
		}
	case begin:
		w.begin(int(e.who))
	case commit:
		w.commit(int(e.who))
	case timer:
		if a := &w.agents[e.who]; e.gen == a.timer && !a.active {
			a.active = true
			w.begin(int(e.who))
		}
	}
	w.rouse()
	return err
}

// result stops the clock.
func (w *world) result() Result {
	for c := range w.cores {
		w.settle(c)
	}
	r := Result{
		Completed: w.counted, Short: w.short, Long: w.long, Missed: w.missed + w.late(), Elapsed: w.now,
		Runtime: make([]cs.Time, len(w.instances)), Counts: w.enclave.Counts(),
	}
	for i := range w.instances {
		r.Runtime[i] = w.instances[i].runtime
	}
	if all := float64(w.now) * float64(len(w.cores)); all > 0 {
		r.Utilisation = float64(w.executed) / all
		r.Switching = float64(w.switching) / all
		r.Agent = float64(w.worked-w.unfinished()) / float64(w.now) / float64(len(w.agents))
	}
	return r
}

// unfinished is how much of the agents' work lies beyond the end.
func (w *world) unfinished() (t cs.Time) {
	for i := range w.agents {
		t += max(0, w.agents[i].until-w.now)
	}
	return t
}

// late counts requests that did not end and are past their deadline.
func (w *world) late() (n int) {
	past := func(j Job, arrived cs.Time) {
		if j.Within > 0 && arrived+j.Within < w.now {
			n++
		}
	}
	for i := range w.tasks {
		if t := &w.tasks[i]; t.busy {
			past(t.job, t.arrived)
		}
	}
	for i := range w.instances {
		in := &w.instances[i]
		for _, r := range in.waiting[in.head:] {
			past(r.job, r.arrived)
		}
	}
	return n
}

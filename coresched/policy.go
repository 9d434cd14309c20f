package coresched

// Policy decides which task runs on which core of one enclave. It does no I/O,
// reads no clock and keeps no reference to what it is given but the View of
// Start. Its methods are called one at a time.
//
// A policy is an order of tasks and little more. Cores that nobody has, tasks'
// sequence numbers and who runs where are the View's business; beginning anew
// after lost messages, and taking a running enclave over, are a Start.
type Policy interface {
	// Traits says what the policy needs. It is constant.
	Traits() Traits
	// Start makes the policy forget all it knew. Messages of type TaskNew for
	// all tasks follow.
	Start(v *View)
	// Handle takes note of a message. The View shows the state after it.
	Handle(m *Message)
	// Schedule adds to b what the agent of core agent, or NoCPU, wants done
	// now. It is called after messages, and when the time given to Batch.Again
	// has come. A task that is put into b is the batch's, until Done.
	Schedule(agent CPU, now Time, b *Batch)
	// Done tells the result of a transaction. The target of one that is not
	// Complete is in the policy's hands again; if it has died, blocked or left,
	// a message says so next.
	Done(t *Txn)
}

// Traits are what a policy needs.
type Traits struct {
	// Name is what the policy is called by, in lower case.
	Name string
	// PerCPU: an agent on each core; else one for all.
	PerCPU bool
	// Group is how its batches are committed.
	Group Grouping
}

// Grouping is how the transactions of a batch belong together.
type Grouping uint8

const (
	// Single: each is committed by itself, the first before the next is written.
	Single Grouping = iota
	// Grouped: all are committed by one call; each may fail by itself.
	Grouped
	// Sync: all take effect or none.
	Sync
)

// Words is where an agent reads status words.
type Words interface {
	// Allowed tells whether t may run on c.
	Allowed(t Task, c CPU) bool
}

// View is an enclave as its agent knows it: by the messages read and the
// transactions that are Complete.
type View struct {
	words Words
	cpus  CPUSet
	idle  CPUSet // nobody's, usable, and not in a batch
	busy  CPUSet // not usable
	cpu   []viewCPU
	tasks []viewTask
}

type viewCPU struct {
	running Task
	since   Time
}

type viewTask struct {
	seq      Seq
	present  bool
	runnable bool
	on       CPU
	hints    Hints
	runtime  Time
	at       Time // when it became runnable
}

// CPUs returns the enclave's cores.
func (v *View) CPUs() *CPUSet { return &v.cpus }

// Idle returns the cores that can be given away without taking them from
// anybody. Batch.Run takes a core out of it.
func (v *View) Idle() *CPUSet { return &v.idle }

// Running returns who has core c, or NoTask.
func (v *View) Running(c CPU) Task { return v.cpu[c].running }

// Since returns since when Running(c) has it, or, if it was running when the
// policy began, when it was told of.
func (v *View) Since(c CPU) Time { return v.cpu[c].since }

// Allowed tells whether t may run on c.
func (v *View) Allowed(t Task, c CPU) bool { return v.words.Allowed(t, c) }

// Hints returns those of t's last message. t has had one.
func (v *View) Hints(t Task) *Hints { return &v.tasks[t].hints }

// Runtime returns how long t has had a core, by its last message.
func (v *View) Runtime(t Task) Time { return v.tasks[t].runtime }

// RunnableAt returns when t became runnable, by its last message.
func (v *View) RunnableAt(t Task) Time { return v.tasks[t].at }

// On returns the core that t has, or NoCPU.
func (v *View) On(t Task) CPU { return v.tasks[t].on }

// Tasks returns a number greater than that of any task so far.
func (v *View) Tasks() int { return len(v.tasks) }

// Batch is what a policy wants done.
type Batch struct {
	view  *View
	seq   Seq // the agent's, for policies with an agent for each core
	txns  []Txn
	named CPUSet // by txns
	again Time
	timer bool
}

// Run gives core c to t, which waits for one. Who has the core is preempted.
// One batch names a core and a task once at most.
func (b *Batch) Run(c CPU, t Task) {
	b.view.idle.Remove(c)
	b.named.Add(c)
	b.txns = append(b.txns, Txn{CPU: c, Task: t, TaskSeq: b.view.tasks[t].seq, AgentSeq: b.seq})
}

// Clear takes core c from who has it and gives it to nobody.
func (b *Batch) Clear(c CPU) {
	b.named.Add(c)
	b.txns = append(b.txns, Txn{CPU: c, AgentSeq: b.seq})
}

// Names tells whether c is in the batch already.
func (b *Batch) Names(c CPU) bool { return b.named.Has(c) }

// Again asks for a Schedule at the given time, if there was none until then.
// Of several times the earliest counts.
func (b *Batch) Again(at Time) {
	if !b.timer || at < b.again {
		b.again, b.timer = at, true
	}
}

// Txns returns the transactions, for the actuator to commit.
func (b *Batch) Txns() []Txn { return b.txns }

// Timer returns the time given to Again, if any was.
func (b *Batch) Timer() (at Time, set bool) { return b.again, b.timer }

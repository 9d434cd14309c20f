package coresched

import "fmt"

// Txn is a transaction: the wish to run a task on a core.
type Txn struct {
	CPU CPU
	// Task is the target; NoTask: leave the core to nobody.
	Task Task
	// TaskSeq is the target's sequence number on which this was decided.
	TaskSeq Seq
	// AgentSeq is that of the agent's last message, or 0: do not check.
	AgentSeq Seq
	// Result is set by the commit.
	Result Result
}

// Result is what became of a transaction.
type Result uint8

// The results; their names and meanings are ghOSt's (enum ghost_txn_state).
const (
	// Pending: not committed yet.
	Pending Result = iota
	// Complete: it has taken effect.
	Complete
	// TargetOnCPU: the target has a core already.
	TargetOnCPU
	// TargetStale: there are messages about the target that were not heeded.
	TargetStale
	// TargetNotFound: there is no such task.
	TargetNotFound
	// TargetNotRunnable: the target is blocked.
	TargetNotRunnable
	// AgentStale: there are messages that the agent has not heeded.
	AgentStale
	// CPUOffline: the core is offline.
	CPUOffline
	// CPUNotAvailable: something that cannot be pushed off uses the core.
	CPUNotAvailable
	// InvalidCPU: the core is not of this enclave, or the target may not run there.
	InvalidCPU
	// NoPermission: the target is in another enclave.
	NoPermission
	// NoAgent: the enclave has no policy now.
	NoAgent
	// Poisoned: another transaction of the same sync group failed.
	Poisoned
	results
)

var resultNames = [results]string{
	"PENDING", "COMPLETE", "TARGET_ONCPU", "TARGET_STALE", "TARGET_NOT_FOUND", "TARGET_NOT_RUNNABLE", "AGENT_STALE",
	"CPU_OFFLINE", "CPU_NOT_AVAILABLE", "INVALID_CPU", "NO_PERMISSION", "NO_AGENT", "POISONED",
}

// String returns the name that ghOSt uses, shortened.
func (r Result) String() string {
	if r < results {
		return resultNames[r]
	}
	return fmt.Sprintf("result %d", uint8(r))
}

// String is for traces.
func (t *Txn) String() string {
	return fmt.Sprintf("TXN cpu=%d task=%d seq=%d %v", t.CPU, t.Task, t.TaskSeq, t.Result)
}

// Action is what whoever drives a Machine has to carry out, in order.
type Action struct {
	Kind ActionKind
	CPU  CPU  // Run, Stop
	Task Task // Run, Stop, Adopt, Release
}

// ActionKind is what to do.
type ActionKind uint8

// The actions.
const (
	// Adopt: the task runs only by Run from now on.
	Adopt ActionKind = iota
	// Stop: the task leaves the core and waits for the next Run.
	Stop
	// Run: the task gets the core, which is free.
	Run
	// Release: the task is the host's own scheduler's again, on any core.
	Release
)

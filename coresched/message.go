package coresched

import "fmt"

// MessageType is what a message tells.
type MessageType uint8

// The messages, named as ghOSt's.
const (
	// TaskNew: the target is in the enclave from now on. Message.Runnable and
	// OnCPU tell how it stands.
	TaskNew MessageType = iota + 1
	// TaskWakeup: the target was blocked and is runnable.
	TaskWakeup
	// TaskBlocked: the target left its core and cannot run.
	TaskBlocked
	// TaskPreempt: the target was taken off its core and is runnable.
	TaskPreempt
	// TaskYield: the target gave its core up and is runnable.
	TaskYield
	// TaskDead: the target has ended.
	TaskDead
	// TaskDeparted: the target has left the enclave.
	TaskDeparted
	// TaskAffinityChanged: the target may run on other cores than before.
	TaskAffinityChanged
	// TaskPriorityChanged: the target's hints are others than before.
	TaskPriorityChanged
	// CPUTick: a core's timer; only to who asked for it.
	CPUTick
	// CPUAvailable: the core can be used again.
	CPUAvailable
	// CPUBusy: the core is offline, or in use by what no policy can push off.
	CPUBusy
	messageTypes
)

var messageNames = [messageTypes]string{
	TaskNew: "TASK_NEW", TaskWakeup: "TASK_WAKEUP", TaskBlocked: "TASK_BLOCKED", TaskPreempt: "TASK_PREEMPT",
	TaskYield: "TASK_YIELD", TaskDead: "TASK_DEAD", TaskDeparted: "TASK_DEPARTED",
	TaskAffinityChanged: "TASK_AFFINITY_CHANGED", TaskPriorityChanged: "TASK_PRIORITY_CHANGED", CPUTick: "CPU_TICK", CPUAvailable: "CPU_AVAILABLE", CPUBusy: "CPU_BUSY",
}

// String returns the name that ghOSt uses.
func (t MessageType) String() string {
	if t > 0 && t < messageTypes {
		return messageNames[t]
	}
	return fmt.Sprintf("message %d", uint8(t))
}

// Message is one event, told to an agent.
type Message struct {
	Type MessageType
	// Runnable and OnCPU: how the target stands after the event.
	Runnable, OnCPU bool
	// Task is the target, NoTask if the message is about a core.
	Task Task
	// Seq is the target's sequence number, Agent that of the agent's queue.
	Seq, Agent Seq
	// CPU is where the target is or was last, or the core that the message is
	// about.
	CPU CPU
	// Home is the core whose agent hears of the target, where each core has one.
	Home CPU
	// Runtime is the time that the target has had a core, in all.
	Runtime Time
	// At is when the event was.
	At Time
	// Hints are the target's.
	Hints Hints
}

// String is for traces: type, target, sequence number, core and runtime.
func (m *Message) String() string {
	if m.Task == NoTask {
		return fmt.Sprintf("%v cpu=%d", m.Type, m.CPU)
	}
	return fmt.Sprintf("%v task=%d seq=%d cpu=%d runtime=%v", m.Type, m.Task, m.Seq, m.CPU, m.Runtime)
}

// Status is the status word of a task, which its enclave's policy may read at
// any time.
type Status struct {
	// Present: the task exists and is in the enclave.
	Present, Runnable, OnCPU bool
	CPU                      CPU
	// Seq is the sequence number of the last message about the task, whether
	// it was read or not.
	Seq     Seq
	Runtime Time
}

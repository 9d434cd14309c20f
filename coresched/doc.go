// Package coresched lets replaceable policies decide which task runs on which
// core, as ghOSt does (SOSP 2021), on a stock kernel.
//
// Three parts meet here. The actuator knows the truth: a Machine with its
// cores and tasks, divided into enclaves. It tells what happens in messages,
// shows how each task stands in status words, and checks and carries out
// transactions. A Policy decides. An Agent stands between the two: it keeps the
// policy's view of its enclave, which lags behind the truth, and stamps each
// transaction with the sequence numbers that it was decided on.
//
// Everything in this package is a pure core: no system call, no clock, no
// goroutine, no lock. The simulator, the tests and a live actuator drive the
// same code; whoever drives it carries out the Actions that come out of it.
//
// # What a commit means
//
// A transaction that is COMPLETE has changed the Machine: its target is the one
// task on its core. What a stock kernel then still has to do (wake a thread,
// set its affinity, push another one off) takes time, in which the core may be
// in neither task. All transactions of a sync group are checked before any
// takes effect, so that all or none do; that they also begin to run at the same
// moment, as on ghOSt's kernel, nothing on a stock kernel can promise.
//
// # Losing messages
//
// A queue of messages is bounded. When it overflows, what is lost is counted,
// transactions fail with AGENT_STALE, and the agent begins anew: it scans the
// status words and starts its policy with a TASK_NEW for each task. An upgrade
// and the successor of a crashed policy begin the same way, so that there is one
// way to discover tasks.
package coresched

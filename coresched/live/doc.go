// Package live schedules threads of this machine by the policies of coresched:
// it is the actuator.
//
// It is polite. No thread gets a real-time class: a thread that a policy runs is
// SCHED_OTHER on the one core that it was given; one that can run and has no core,
// or is blocked, is SCHED_IDLE on the enclave's cores, where it runs only while
// nothing else wants to. So an idle core is never left so while there is work, a
// policy that stands still slows threads down and does not stop them, and threads
// outside the enclave are kept off its cores only if it is exclusive (Keep). Then
// all others are in a cpuset of the other cores.
//
// What threads do comes from BPF programs at the scheduler's tracepoints, which
// look at threads of enclaves alone: blocks, wake-ups, ends, and new threads,
// which join the enclave of their maker. Threads are known by their numbers in
// the initial PID namespace.
//
// Programs tell more about their threads in a table (coresched/hints).
//
// An enclave begins with cores that are online. One that goes offline is not given to
// anybody until it comes back.
//
// A policy that ends loses its enclave at once. So does one that stands still: it
// has read no message, though there was one, for 50 ms. Of this time that counts in
// which it slept or was stopped, or used the CPU; not that in which it wanted a core
// and the machine had none for it. On an idle machine that shows within 80 ms.
//
// Whatever ends the actuator, threads get back the class, nice value, slice, reset
// on fork and cores that they had: it does so itself when it ends in order, and a guard, a process
// that does nothing else, when it does not, or when it stands still by the same
// rule, but with 500 ms of CPU time, because it does other things beside, and 10 s
// in any case. An actuator that goes on after that has no policies until it is
// given some.
package live

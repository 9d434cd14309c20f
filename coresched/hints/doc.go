// Package hints is a table in shared memory in which a program tells the policy
// of its enclave about its threads, as ghOSt's PrioTable does: when the job at
// hand has to be done, how urgent its kind of work is, and whether a thread that
// runs has anything to do.
//
// The program makes the table (New, or junction_hints.h in C), and writes it
// without a system call; the actuator finds it among the program's open
// descriptors, and reads it when a thread wakes, and every 10 ms while the thread
// wants a core. Nobody has to be asked: a program only tells about threads of its
// own, and what it says is a wish that a policy may ignore. One that says that all
// it does is urgent is believed, however: whose threads share an enclave decides
// who puts them there.
//
// # Layout, version 1
//
// A memfd called junction-hints that is sealed against shrinking, little-endian:
//
//	64 bytes: magic "JHNT", version, items (a power of two), classes; 32-bit each
//	32 bytes for each work class: count, qos, 64-bit period in ns
//	64 bytes for each item: count, thread, work class, flags, 64-bit deadline in ns by CLOCK_MONOTONIC
//
// count is odd while its writer is at it. The item of thread T is one of the
// Probes from T modulo items on. Threads are numbered as in the initial PID
// namespace. A reader trusts nothing: it checks the header once, and copies what
// it uses before it looks at it.
package hints

// Package engine executes program code in the libOS's own address space: a
// platform for gVisor's Sentry in which a system call of the program costs no
// switch of address space or process.
//
// # Entering and leaving
//
// [context.Switch] points a per-thread area at the program's registers and
// jumps into the program (run_amd64.s) between runtime.entersyscall and
// runtime.exitsyscall: to the Go scheduler it is a thread in a system call. In
// program mode the FS base is the program's and the GS base is the area's,
// unless the program has set one itself. The program is left
//
//   - by a jump from a patched system call site, to callEntry (sites.go);
//   - by a signal: SIGSYS for a system call at a site that is not patched
//     (Syscall User Dispatch, Documentation/admin-guide/syscall-user-dispatch.rst),
//     SIGSEGV and its like for a fault, SIGCHLD for an interrupt.
//
// Either takes the registers and the extended state, of which callEntry moves
// only what the program has in use, and returns into Switch on the host's stack.
//
// # Which code is the program's
//
// A handler tells program mode by the selector of Syscall User Dispatch, which
// is set for as long as the program executes, wherever its code lies. The host's
// own ranges (layout.go) are occupied in every address space of a program. The
// few instructions of entering and leaving, when FS is the program's in host
// text, are ranges of their own: a signal there undoes the entry, or is noted
// and raised again after the exit.
//
// # More than one address space
//
// A host process has one mapping at an address, so one address space at a
// time is in the process; others run on a second platform (systrap) until
// the slot is theirs (slot.go), which policy.go decides. Between two Switches a
// thread's registers are the Sentry's, and a program's memory is a file: moving
// an address space is stopping its threads and unmapping it.
package engine

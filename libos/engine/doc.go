// Package engine executes program code in the libOS's own address space: a
// platform for gVisor's Sentry in which a system call of the program costs no
// switch of address space or process.
//
// # Entering and leaving
//
// [context.Switch] points a per-thread area at the program's registers and
// jumps into the program (run_amd64.s) between runtime.entersyscall and
// runtime.exitsyscall: to the Go scheduler it is a thread in a system call. In
// program mode the FS base is the program's and the GS base is the area's.
// The program is left by a signal: SIGSYS for a system call (Syscall User
// Dispatch, Documentation/admin-guide/syscall-user-dispatch.rst), SIGSEGV and
// its like for a fault, SIGCHLD for an interrupt. The handler takes the
// registers and the extended state out of the signal frame and returns into
// Switch on the host's stack.
//
// # Which code is the program's
//
// A handler tells program mode by the interrupted address: the program's lie
// below maxUserAddress and outside the host's own ranges (layout.go), which
// every address space of a program holds occupied. The few instructions of
// entering, when FS is already the program's, are a range of their own: a
// signal there undoes the entry.
//
// # More than one address space
//
// A host process has one mapping at an address, so one address space at a
// time is in the process; others run on a second platform (systrap) until
// the slot is theirs. See slot.go.
package engine

// Package kthreads bounds how many threads of programs execute at once, and
// shares the processors among them by time slices, on top of any platform of
// the Sentry.
//
// Junction's name for what it bounds is kthread: a host thread that executes
// program code. A thread of a program needs a token to enter its program. It
// keeps the token while the libOS serves its system calls, and loses it when it
// sleeps, or at the end of the call when it has had it for a quantum, and others
// wait. When nobody waits nothing is done: no timer runs, no thread is interrupted,
// and keeping a token is a look at memory of the thread's own.
//
// queue.go is the pure core; the rest is its shell.
package kthreads

// Package boundary makes an instance's process the limit of what its program
// can do to the host. Under the in-process engine a program can write the
// libOS's memory and jump into its code, so what the process may do is all
// that confines it; under systrap it is the second line behind the Sentry.
//
// The parts, in the order in which an instance applies them:
//
//	inherited.go   files that the caller left open are closed
//	privileges.go  all capabilities go, and root becomes the program's user
//	calls.go       the host calls that an instance makes, in groups with reasons
//	filter.go      no new privileges, and a seccomp filter of these calls on all threads
//
// All of it is for good: a process cannot take it back.
package boundary

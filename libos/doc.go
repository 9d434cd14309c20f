// Package libos runs unmodified Linux programs in an instance: gVisor's
// Sentry, used as a library, in the calling process.
//
// There is no helper process for files, no container bundle and no re-exec: the
// kernel, its file systems, the TCP/IP stack (package netstack) and the server
// of host files all live here. A process holds one instance at most, because
// parts of the Sentry are global to a process.
//
// The parts, in the order in which Boot makes them:
//
//	kernel.go   memory file, clocks, vdso, platform, the Sentry kernel
//	mounts.go   the instance's file tree (gofer.go serves the host's)
//	exec.go     further programs in a running instance
//	stdio.go    the host files behind descriptors 0, 1 and 2
//	program.go  finding the program, with errors as a shell would give them
//	instance.go Boot, Start, Signal, Wait, Close
package libos

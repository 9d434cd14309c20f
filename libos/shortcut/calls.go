package shortcut

import (
	"gvisor.dev/gvisor/pkg/abi/sentry"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// names are the calls that are served: those that programs make all the time.
//
// None of them may end in a state of the task loop other than the program's
// next instruction (kernel.SyscallControl; rt_sigreturn's says only that there
// is no result), nor leave a signal mask to be restored (ppoll, pselect6,
// epoll_pwait, rt_sigsuspend), nor register work for the loop.
var names = []string{
	"read", "write", "pread64", "pwrite64", "readv", "writev", "preadv", "pwritev", "preadv2", "pwritev2", "sendfile", "splice",
	"open", "openat", "close", "stat", "fstat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2",
	"lseek", "readlink", "readlinkat", "getdents", "getdents64", "getcwd", "fcntl", "fsync", "fdatasync", "ftruncate", "fallocate",
	"dup", "dup2", "dup3", "pipe", "pipe2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "rename", "renameat", "renameat2",
	"poll", "select", "epoll_wait", "epoll_ctl", "epoll_create1", "eventfd2", "timerfd_create", "timerfd_settime", "timerfd_gettime",
	"mmap", "mprotect", "munmap", "mremap", "madvise", "brk", "mincore",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "kill", "tkill", "tgkill",
	"sched_yield", "nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time", "futex", "set_robust_list",
	"getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getpgid", "getpgrp", "getrandom", "getrusage", "times", "uname", "getcpu",
	"setitimer", "getitimer", "timer_settime", "timer_gettime", "sched_getaffinity",
	"socket", "connect", "accept", "accept4", "bind", "listen", "shutdown", "getsockname", "getpeername", "socketpair",
	"setsockopt", "getsockopt", "sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg",
}

// onlyPresent is a call's word in the table of features if nothing wants to
// know about it: no tracing, no runtime monitoring.
const onlyPresent = 1

// served tells by its number whether a call is served.
type served [sentry.MaxSyscallNum + 1]bool

// findCalls returns the calls of names that the host's table has.
func findCalls() *served {
	s := new(served)
	for _, table := range kernel.SyscallTables() {
		if table.Arch != arch.Host {
			continue
		}
		for _, name := range names {
			if nr, err := table.LookupNo(name); err == nil {
				s[nr] = true
			}
		}
	}
	return s
}

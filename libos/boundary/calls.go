package boundary

import (
	"cmp"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
)

// Needs tells which host calls an instance makes.
type Needs struct {
	// Write: a host directory is written through.
	Write bool
	// Systrap: programs may execute on gVisor's systrap.
	Systrap bool
	// SystrapLater: systrap starts while programs run, not before.
	SystrapLater bool
}

// call is a host call that is allowed: any, or with some values of one argument.
type call struct {
	number uintptr
	// arg is the argument's position, from 0; values nil: it does not matter.
	// What is tested has 32 bits to the kernel, which ignores the upper half.
	arg    int
	values []uint32
}

// group is a set of host calls that are allowed for one reason.
type group struct {
	name, reason string
	calls        []call
}

// anyArgs allows calls whatever their arguments. The kernel answers these from
// a bitmap, without running the filter (seccomp_cache_prepare, Linux 5.11), so
// all frequent calls are of this kind.
func anyArgs(numbers ...uintptr) (calls []call) {
	for _, n := range numbers {
		calls = append(calls, call{number: n})
	}
	return calls
}

// where allows a call if argument arg has one of values. Only rare calls have
// it, and only those that would reach beyond the instance with other values.
func where(number uintptr, arg int, values ...uint32) call {
	return call{number, arg, values}
}

// groups lists what n allows.
func (n Needs) groups() []group {
	all := []group{goRuntime(), sentry(), files(), network()}
	if n.Write {
		all = append(all, writtenFiles())
	}
	if n.Systrap {
		all = append(all, systrap())
	}
	if n.SystrapLater {
		all = append(all, systrapLater())
	}
	return all
}

// calls merges the groups, ordered by number. A call of two groups is allowed
// as either says.
func (n Needs) calls() []call {
	merged := make(map[uintptr]call)
	for _, g := range n.groups() {
		for _, c := range g.calls {
			old, both := merged[c.number]
			switch {
			case both && (old.values == nil || c.values == nil):
				c = call{number: c.number}
			case both:
				c.values = slices.Concat(old.values, c.values)
			}
			merged[c.number] = c
		}
	}
	return slices.SortedFunc(maps.Values(merged), func(a, b call) int { return cmp.Compare(a.number, b.number) })
}

// goRuntime: the flags of clone are those of a thread (runtime/os_linux.go).
func goRuntime() group {
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD
	calls := anyArgs(
		unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_SCHED_YIELD,
		unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY, unix.SYS_GETCPU, // also those that the vsyscall page leads to
		unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
		unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
		unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETRANDOM, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE,
	)
	calls = append(calls, anyArgs(vsyscalls...)...)
	calls = append(calls,
		where(unix.SYS_CLONE, 0, thread, thread|unix.CLONE_SETTLS), // no processes
		where(unix.SYS_TGKILL, 0, uint32(os.Getpid())),             // no signals to others
		where(unix.SYS_PRCTL, 0, unix.PR_SET_VMA, unix.PR_SET_SYSCALL_USER_DISPATCH),
		where(unix.SYS_SCHED_GETAFFINITY, 0, 0))
	return group{"runtime", "The Go runtime: threads, signals, memory, clocks, polling.", calls}
}

func sentry() group {
	calls := anyArgs(
		unix.SYS_FALLOCATE, unix.SYS_FTRUNCATE, unix.SYS_MINCORE, unix.SYS_MLOCK, unix.SYS_MUNLOCK, // the memory file
		unix.SYS_MEMBARRIER, unix.SYS_GETRUSAGE,
		unix.SYS_PPOLL, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREADV, unix.SYS_PREADV2, unix.SYS_PWRITEV, unix.SYS_PWRITEV2,
		unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_STATX, unix.SYS_FSYNC, unix.SYS_UTIMENSAT,
		unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_SHUTDOWN, unix.SYS_DUP,
	)
	calls = append(calls,
		// Not F_SETOWN, which sends signals to others, and no leases.
		where(unix.SYS_FCNTL, 1, unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_ADD_SEALS),
		// Not TIOCSTI and TIOCLINUX, which type commands into the user's shell.
		where(unix.SYS_IOCTL, 1, linux.FIONREAD, linux.TCGETS, linux.TCSETS, linux.TCSETSW, linux.TCSETSF,
			linux.TCGETS2, linux.TCSETS2, linux.TCSETSW2, linux.TCSETSF2, linux.TIOCGWINSZ, linux.TIOCSWINSZ),
		where(unix.SYS_GETSOCKOPT, 1, unix.SOL_SOCKET))
	return group{"sentry", "The Sentry: its memory file, and the host files behind the standard streams.", calls}
}

func files() group {
	return group{"files", "The file server in the process: reading host files.", anyArgs(
		unix.SYS_OPENAT, sysFstatat, unix.SYS_READLINKAT, unix.SYS_GETDENTS64, unix.SYS_FSTATFS,
		unix.SYS_FGETXATTR, unix.SYS_FLISTXATTR, unix.SYS_LGETXATTR, unix.SYS_LLISTXATTR,
		unix.SYS_MEMFD_CREATE, unix.SYS_SOCKETPAIR,
	)}
}

func writtenFiles() group {
	return group{"written files", "Directories of --rw: changing host files.", anyArgs(
		unix.SYS_MKDIRAT, unix.SYS_MKNODAT, unix.SYS_SYMLINKAT, unix.SYS_LINKAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT2,
		unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHOWNAT, unix.SYS_DUP3,
		unix.SYS_FSETXATTR, unix.SYS_FREMOVEXATTR, unix.SYS_LSETXATTR, unix.SYS_LREMOVEXATTR,
	)}
}

func network() group {
	calls := anyArgs(unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_GETSOCKNAME,
		unix.SYS_ACCEPT4) // a monitor that takes over from one that died
	return group{"network", "NIC queues that are open, AF_XDP sockets or TAP, and in server mode the monitor.", append(calls,
		where(unix.SYS_GETSOCKOPT, 1, unix.SOL_XDP),
		where(unix.SYS_FCNTL, 1, unix.F_GET_SEALS), // of the queue that an instance gets in a mode switch
		where(unix.SYS_IOCTL, 1, unix.SIOCETHTOOL))}
}

// systrap: gVisor's own list of what the platform calls has the same members
// and, where no process can be named in an argument, more tests.
func systrap() group {
	calls := anyArgs(unix.SYS_PTRACE, unix.SYS_WAIT4, unix.SYS_WAITID, unix.SYS_TGKILL, unix.SYS_SETPRIORITY)
	return group{"systrap", "Driving the processes that hold programs.", append(calls,
		where(unix.SYS_RT_TGSIGQUEUEINFO, 0, uint32(os.Getpid())),
		where(unix.SYS_IOCTL, 1, linux.SECCOMP_IOCTL_NOTIF_RECV, linux.SECCOMP_IOCTL_NOTIF_SEND, linux.SECCOMP_IOCTL_NOTIF_SET_FLAGS))}
}

// systrapLater: the first process of systrap is a copy of this one and keeps
// its filter, as do all that are copied from it.
func systrapLater() group {
	calls := anyArgs(unix.SYS_SECCOMP, unix.SYS_SETSID, unix.SYS_GETPPID, unix.SYS_GETPRIORITY, unix.SYS_MSEAL)
	calls = append(calls, systrapLaterArch()...)
	return group{"systrap later", "Starting these processes, of which the first is a copy of this one.", append(calls,
		where(unix.SYS_CLONE, 0,
			unix.CLONE_FILES|uint32(unix.SIGCHLD),                                                // the first
			unix.CLONE_FILES|unix.CLONE_PARENT|uint32(unix.SIGCHLD),                              // one for each address space
			unix.CLONE_FILES|unix.CLONE_FS|unix.CLONE_VM|unix.CLONE_PTRACE|uint32(unix.SIGKILL)), // threads in them
		where(unix.SYS_KILL, 1, uint32(unix.SIGSTOP)),
		where(unix.SYS_TKILL, 1, uint32(unix.SIGSTOP)),
		where(unix.SYS_PRCTL, 0, unix.PR_SET_PDEATHSIG, unix.PR_SET_NO_NEW_PRIVS, unix.PR_GET_DUMPABLE, unix.PR_SET_DUMPABLE))}
}

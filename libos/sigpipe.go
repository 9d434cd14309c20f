package libos

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/socket"
)

// The Sentry sends SIGPIPE only for pipes of its own. Linux also sends it
// for a broken stream socket (send(2), EPIPE) and, here, for a host pipe
// behind a standard stream, so that `yes | head -1` ends outside as inside.

// noFlags marks a writing system call that takes no MSG_* flags.
const noFlags = -1

// writers are the system calls that can fail with EPIPE, by the position of
// their MSG_* flags.
var writers = map[uintptr]int{
	unix.SYS_WRITE:    noFlags,
	unix.SYS_WRITEV:   noFlags,
	unix.SYS_SENDFILE: noFlags,
	unix.SYS_SPLICE:   noFlags,
	unix.SYS_SENDTO:   3,
	unix.SYS_SENDMSG:  2,
	unix.SYS_SENDMMSG: 3,
}

// installSIGPIPE wraps the writing system calls of the native table. It must
// run before the kernel starts, once in a process.
func installSIGPIPE() {
	for _, table := range kernel.SyscallTables() {
		if table.Arch != arch.Host {
			continue
		}
		for nr, flags := range writers {
			call := table.Table[nr]
			call.Fn = withSIGPIPE(call.Fn, flags)
			table.Table[nr] = call
		}
		table.Init()
	}
}

// withSIGPIPE wraps one system call.
func withSIGPIPE(fn kernel.SyscallFn, flags int) kernel.SyscallFn {
	return func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
		n, ctrl, err := fn(t, sysno, args)
		if err != nil && linuxerr.Equals(linuxerr.EPIPE, err) && raisesSIGPIPE(t, sysno, args, flags) {
			t.SendSignal(kernel.SignalInfoNoInfo(linux.SIGPIPE, t, t))
		}
		return n, ctrl, err
	}
}

// raisesSIGPIPE tells whether EPIPE comes with the signal: not when the
// caller asked for none, and not for sockets that keep datagrams apart.
func raisesSIGPIPE(t *kernel.Task, sysno uintptr, args arch.SyscallArguments, flags int) bool {
	if flags != noFlags && args[flags].Int()&linux.MSG_NOSIGNAL != 0 {
		return false
	}
	out := 0
	if sysno == unix.SYS_SPLICE {
		out = 2
	}
	file := t.GetFile(args[out].Int())
	if file == nil {
		return false
	}
	defer file.DecRef(t)
	if s, ok := file.Impl().(socket.Socket); ok {
		_, kind, _ := s.Type()
		return kind == linux.SOCK_STREAM
	}
	return true
}

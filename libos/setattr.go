package libos

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
)

// The gofer file system forgets that the host refused to change an attribute
// when it revalidates files, as it does for directories that are written
// through. A host that grants the process no privilege refuses often, so the
// calls are followed by a look at what has become of the file.

// attributeCall tells where a system call has what, by position; none if nowhere.
type attributeCall struct {
	fd, path, owner, mode, flags int
	nofollow                     bool
}

const none = -1

// attributeCalls are the system calls that change owner, group or mode, on
// every architecture.
var attributeCalls = map[uintptr]attributeCall{
	unix.SYS_FCHOWN:   {fd: 0, path: none, owner: 1, mode: none, flags: none},
	unix.SYS_FCHOWNAT: {fd: 0, path: 1, owner: 2, mode: none, flags: 4},
	unix.SYS_FCHMOD:   {fd: 0, path: none, owner: none, mode: 1, flags: none},
	unix.SYS_FCHMODAT: {fd: 0, path: 1, owner: none, mode: 2, flags: none},
}

// installAttributeChecks wraps these calls. It must run before the kernel
// starts, once in a process.
func installAttributeChecks() {
	for nr, c := range attributeCalls {
		wrapCall(nr, c.wrap)
	}
}

// wrapCall puts a function around a system call.
func wrapCall(nr uintptr, wrap func(kernel.SyscallFn) kernel.SyscallFn) {
	for _, table := range kernel.SyscallTables() {
		if table.Arch != arch.Host {
			continue
		}
		call := table.Table[nr]
		call.Fn = wrap(call.Fn)
		table.Table[nr] = call
		table.Init()
	}
}

func (c attributeCall) wrap(fn kernel.SyscallFn) kernel.SyscallFn {
	return func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
		n, ctrl, err := fn(t, sysno, args)
		if err != nil {
			return n, ctrl, err
		}
		if st, err := c.stat(t, args); err == nil && !c.holds(t.Credentials().UserNamespace, args, st) {
			return 0, nil, linuxerr.EPERM
		}
		return n, ctrl, nil
	}
}

// holds tells whether st is as args asked for, as far as the kernel does as
// asked: it clears the set-user-ID and set-group-ID bits at times.
func (c attributeCall) holds(ns *auth.UserNamespace, args arch.SyscallArguments, st linux.Statx) bool {
	if c.mode != none {
		const permissions = 0o777
		return uint(st.Mode)&permissions == args[c.mode].ModeT()&permissions
	}
	uid, gid := args[c.owner].Int(), args[c.owner+1].Int()
	return (uid == -1 || ns.MapToKUID(auth.UID(uid)) == auth.KUID(st.UID)) &&
		(gid == -1 || ns.MapToKGID(auth.GID(gid)) == auth.KGID(st.GID))
}

// stat returns the attributes of the file that the call was about.
func (c attributeCall) stat(t *kernel.Task, args arch.SyscallArguments) (linux.Statx, error) {
	opts := &vfs.StatOptions{Mask: linux.STATX_UID | linux.STATX_GID | linux.STATX_MODE}
	at, path := int32(linux.AT_FDCWD), ""
	if c.fd != none {
		at = args[c.fd].Int()
	}
	if c.path != none {
		var err error
		if path, err = t.CopyInString(args[c.path].Pointer(), linux.PATH_MAX); err != nil {
			return linux.Statx{}, err
		}
	}
	start, err := startOf(t, at)
	if err != nil {
		return linux.Statx{}, err
	}
	defer start.DecRef(t)
	root := t.FSContext().RootDirectory()
	defer root.DecRef(t)
	op := &vfs.PathOperation{Root: root, Start: start, Path: fspath.Parse(path)}
	if op.Path.Absolute {
		op.Start = root
	}
	op.FollowFinalSymlink = !c.nofollow && (c.flags == none || args[c.flags].Int()&linux.AT_SYMLINK_NOFOLLOW == 0)
	return t.Kernel().VFS().StatAt(t, t.Credentials(), op, opts)
}

// startOf returns what paths relative to descriptor at begin with, and the
// empty path names: its file, or the working directory.
// The caller owns a reference.
func startOf(t *kernel.Task, at int32) (vfs.VirtualDentry, error) {
	if at == linux.AT_FDCWD {
		return t.FSContext().WorkingDirectory(), nil
	}
	file := t.GetFile(at)
	if file == nil {
		return vfs.VirtualDentry{}, linuxerr.EBADF
	}
	defer file.DecRef(t)
	start := file.VirtualDentry()
	start.IncRef()
	return start, nil
}

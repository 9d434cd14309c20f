package libos

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// ErrEnded is returned by Exec when the instance's program has ended.
var ErrEnded = errors.New("the instance's program has ended")

// ExecOptions describes a further program in an instance.
type ExecOptions struct {
	// Argv is the program and its arguments, as Options.Argv.
	Argv []string
	// Env is added to Options.Env, and takes precedence.
	Env []string
	// Cwd is the working directory. Default: Options.Cwd.
	Cwd string
	// Stdio are host files for descriptors 0, 1 and 2, which Exec takes over,
	// also when it fails; equal ones are one file, -1 is none.
	Stdio [3]int
}

// Program is a further program in an instance. Its methods may be called from
// any goroutine.
type Program struct {
	// PID is its number in the instance.
	PID int32

	i      *Instance
	tg     *kernel.ThreadGroup
	stdio  *stdio
	done   chan struct{}
	status ExitStatus // once done is closed
}

// Exec starts a further program, as the first one's user and with its limits, in
// its file tree. It ends with the first one. Errors wrap ErrNotFound,
// ErrNotExecutable or ErrEnded. Exec makes only host calls that the boundary allows.
func (i *Instance) Exec(o ExecOptions) (*Program, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		closeStdio(o.Stdio)
		return nil, ErrEnded
	}
	if o.Cwd == "" {
		o.Cwd = i.opts.Cwd
	}
	args := i.processArgs(o.Argv, mergeEnv(i.opts.Env, o.Env), o.Cwd)
	p, err := i.create(args, o.Stdio)
	if err != nil {
		return nil, err
	}
	i.k.StartProcess(p.tg)
	i.execs.Go(p.reap)
	return p, nil
}

// create makes a process that does not run yet. It takes streams over.
func (i *Instance) create(args *kernel.CreateProcessArgs, streams [3]int) (p *Program, err error) {
	ns := i.init.Leader().MountNamespace()
	if ns == nil || !ns.TryIncRef() {
		closeStdio(streams)
		return nil, ErrEnded
	}
	args.MountNamespace = ns
	ctx := args.NewContext(i.k)
	if args.Filename, err = i.findProgram(ctx, args); err != nil {
		closeStdio(streams)
		ns.DecRef(ctx)
		return nil, err
	}
	p = &Program{i: i, done: make(chan struct{})}
	if p.stdio, err = importStdio(ctx, i.k, streams, false, args.Credentials); err != nil {
		ns.DecRef(ctx)
		return nil, err
	}
	args.FDTable = p.stdio.fds
	if p.stdio.tty != nil {
		args.TTY = p.stdio.tty.TTY()
	}
	args.Origin = kernel.OriginExec
	tg, tid, err := i.k.CreateProcess(*args) // takes the namespace's reference
	if err != nil {
		p.stdio.release(ctx)
		return nil, fmt.Errorf("%s: %v: %w", args.Filename, err, ErrNotExecutable)
	}
	p.stdio.handOver(ctx)
	p.tg, p.PID = tg, int32(tid)
	return p, nil
}

// mergeEnv returns base with the entries of more, which replace those of the same key.
func mergeEnv(base, more []string) []string {
	key := func(kv string) string { k, _, _ := strings.Cut(kv, "="); return k }
	env := slices.DeleteFunc(slices.Clone(base), func(kv string) bool {
		return slices.ContainsFunc(more, func(m string) bool { return key(m) == key(kv) })
	})
	return append(env, more...)
}

// reap waits for the program's end and frees what it had.
func (p *Program) reap() {
	p.tg.WaitExited()
	p.status = exitStatus(p.tg.ExitStatus())
	ctx := p.i.k.SupervisorContext()
	p.stdio.finish(ctx)
	p.stdio.release(ctx)
	close(p.done)
}

// Done is closed when the program has ended.
func (p *Program) Done() <-chan struct{} { return p.done }

// Wait blocks until the program has ended and tells how.
func (p *Program) Wait() ExitStatus {
	<-p.done
	return p.status
}

// Signal delivers sig as the program's own terminal would, or to the program.
func (p *Program) Signal(sig unix.Signal) error {
	info := &linux.SignalInfo{Signo: int32(sig)}
	if sent, err := p.stdio.signalForeground(p.i.k, info); sent {
		return err
	}
	return p.i.k.SendExternalSignalThreadGroup(p.tg, info)
}

package libos

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/gomaxprocs"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/sentry/watchdog"

	"junction/libos/boundary"
	"junction/libos/kthreads"
)

// Instance is a library OS with one program (and its descendants) in it.
// Its methods may be called from any goroutine.
type Instance struct {
	opts      Options
	engine    Choice
	k         *kernel.Kernel
	time      *kernel.VDSOParamPage
	tree      *boundary.Tree // nil: the process sees all files of the host
	files     *fileServer
	stdio     *stdio
	init      *kernel.ThreadGroup
	dog       *watchdog.Watchdog
	hostCalls int // see Stats

	limits *limits.LimitSet

	closeOnce sync.Once

	execs sync.WaitGroup // of Exec's programs
	mu    sync.Mutex     // of starting programs
	// +checklocks:mu
	ended bool // no further program may start
}

// containerID names the only group of processes that an instance has.
const containerID = "junction"

// Boot makes an instance and loads its program, which does not run before
// Start. Errors wrap ErrNotFound or ErrNotExecutable where the program is at
// fault. A process can boot one instance.
func Boot(opts Options) (*Instance, error) {
	if usesCgo {
		return nil, errors.New("this binary was built with cgo, which the engine cannot fork safely: build it with CGO_ENABLED=0")
	}
	setDefaults(&opts)
	setLogger(opts.Logger)
	clocks := newClocks()
	if err := initProcess(); err != nil {
		return nil, err
	}
	tree := openTree(opts)
	gomaxprocs.SetBase(opts.Kthreads)
	paceCollector()
	i := &Instance{opts: opts, engine: choose(&opts)}
	if err := installAsyncIO(); err != nil {
		return nil, err
	}
	if len(opts.ReadWrite) > 0 {
		installAttributeChecks()
	}
	if opts.Strace {
		installTracing()
	}
	var err error
	if i.k, i.time, err = i.newKernel(clocks, tree); err != nil {
		return nil, err
	}
	if err := i.load(); err != nil {
		return nil, err
	}
	return i, nil
}

// choose is Choose with a warning when a better engine could not be had.
func choose(o *Options) Choice {
	c := Choose(o.Platform)
	if c.Lacking {
		o.Logger.Warn("engine "+c.Name, "reason", c.Reason)
	}
	return c
}

func setDefaults(o *Options) {
	if o.Platform == "" {
		o.Platform = Auto
	}
	if o.Root == "" {
		o.Root = "/"
	}
	if o.Boundary == "" {
		o.Boundary = boundary.Kill
	}
	if o.Cwd == "" {
		o.Cwd = "/"
	}
	if o.Kthreads == 0 {
		o.Kthreads = runtime.NumCPU()
	}
	if o.Quantum == 0 {
		o.Quantum = kthreads.DefaultQuantum
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// load builds the file tree and creates the first process in it.
func (i *Instance) load() error {
	if err := registerFilesystems(i.k); err != nil {
		return err
	}
	i.k.RegisterContainerName(containerID, containerID)
	i.dog = watchdog.New(i.k, watchdog.DefaultOpts)

	var err error
	if i.limits, err = programLimits(); err != nil {
		return fmt.Errorf("setting resource limits: %w", err)
	}
	args := i.processArgs(i.opts.Argv, i.opts.Env, i.opts.Cwd)
	root := *args
	root.Credentials = auth.NewRootCredentials(i.k.RootUserNamespace())
	ctx := root.NewContext(i.k)
	if i.files, err = newFileServer(i.tree); err != nil {
		return fmt.Errorf("starting the file server: %w", err)
	}
	ns, err := mountTree(ctx, i.k, i.files, &i.opts)
	if err != nil {
		return err
	}
	args.MountNamespace = ns // CreateProcess takes the reference
	root.MountNamespace = ns
	if args.Filename, err = i.findProgram(ctx, args); err != nil {
		return err
	}
	streams, err := duplicateStdio(i.opts.Stdio)
	if err != nil {
		return err
	}
	if i.stdio, err = importStdio(ctx, i.k, streams, true, args.Credentials); err != nil {
		return err
	}
	args.FDTable = i.stdio.fds
	if i.stdio.tty != nil {
		args.TTY = i.stdio.tty.TTY()
	}
	if i.init, _, err = i.k.CreateProcess(*args); err != nil {
		return fmt.Errorf("%s: %v: %w", args.Filename, err, ErrNotExecutable)
	}
	i.stdio.handOver(ctx)
	return nil
}

// processArgs describes a process, all but its file tree and files.
func (i *Instance) processArgs(argv, env []string, cwd string) *kernel.CreateProcessArgs {
	return &kernel.CreateProcessArgs{
		Argv:                 argv,
		Envv:                 env,
		WorkingDirectory:     cwd,
		Credentials:          credentials(i.k.RootUserNamespace(), i.opts.UID, i.opts.GID),
		Umask:                0022,
		Limits:               i.limits.GetCopy(),
		MaxSymlinkTraversals: linux.MaxSymlinkTraversals,
		UTSNamespace:         i.k.RootUTSNamespace(),
		IPCNamespace:         i.k.RootIPCNamespace(),
		PIDNamespace:         i.k.RootPIDNamespace(),
		ContainerID:          containerID,
	}
}

// credentials are those of a login as uid: root has all capabilities (over
// the instance, not over the host), others none.
func credentials(ns *auth.UserNamespace, uid, gid uint32) *auth.Credentials {
	caps := &auth.TaskCapabilities{BoundingCaps: auth.AllCapabilities}
	if uid == 0 {
		caps.PermittedCaps, caps.EffectiveCaps = auth.AllCapabilities, auth.AllCapabilities
	}
	return auth.NewUserCredentials(auth.KUID(uid), auth.KGID(gid), nil, caps, ns)
}

// findProgram checks the working directory and looks the program up.
func (i *Instance) findProgram(ctx context.Context, args *kernel.CreateProcessArgs) (string, error) {
	root := args.MountNamespace.Root(ctx)
	defer root.DecRef(ctx)
	cwd := &vfs.PathOperation{Root: root, Start: root, Path: fspath.Parse(args.WorkingDirectory), FollowFinalSymlink: true}
	st, err := i.k.VFS().StatAt(ctx, args.Credentials, cwd, &vfs.StatOptions{Mask: linux.STATX_TYPE})
	if err != nil {
		return "", fmt.Errorf("working directory %s: %w (choose another with --cwd)", args.WorkingDirectory, err)
	}
	if st.Mode&linux.S_IFMT != linux.S_IFDIR {
		return "", fmt.Errorf("working directory %s: not a directory (choose another with --cwd)", args.WorkingDirectory)
	}
	if len(args.Argv) == 0 {
		return "", fmt.Errorf("no program given: %w", ErrNotFound)
	}
	f := &finder{ctx: ctx, vfs: i.k.VFS(), creds: args.Credentials, root: root, cwd: args.WorkingDirectory}
	return f.find(args.Argv[0], args.Envv)
}

// Start lets the program run, behind the boundary.
func (i *Instance) Start() error {
	if err := i.enclose(); err != nil {
		return err
	}
	if i.opts.Watchdog {
		i.dog.Start()
	}
	refreshClocks(i.k, i.time)
	if err := i.k.Start(); err != nil {
		return fmt.Errorf("starting the kernel: %w", err)
	}
	return nil
}

// Signal delivers sig as a terminal would: to the foreground process group
// when the program has a terminal, else to the program.
func (i *Instance) Signal(sig unix.Signal) error {
	info := &linux.SignalInfo{Signo: int32(sig)}
	if sent, err := i.stdio.signalForeground(i.k, info); sent {
		return err
	}
	return i.k.SendExternalSignalThreadGroup(i.init, info)
}

// SignalProgram delivers sig to the program itself.
func (i *Instance) SignalProgram(sig unix.Signal) error {
	return i.k.SendExternalSignalThreadGroup(i.init, &linux.SignalInfo{Signo: int32(sig)})
}

// Stopped tells whether the program is stopped by a signal, as ^Z does.
func (i *Instance) Stopped() bool {
	leader := i.init.Leader()
	return leader.TaskGoroutineState() == kernel.TaskGoroutineStopped && strings.HasPrefix(leader.StateStatus(), "T ")
}

// Wait blocks until the program has ended and tells how. What other programs
// the instance runs end with it, as with the init of a PID namespace.
func (i *Instance) Wait() ExitStatus {
	i.init.WaitExited()
	status := i.init.ExitStatus()
	i.mu.Lock()
	i.ended = true
	i.mu.Unlock()
	i.k.Kill(linux.WaitStatusExit(0))
	i.k.WaitExited()
	i.execs.Wait()
	i.stdio.finish(i.k.SupervisorContext())
	return exitStatus(status)
}

func exitStatus(s linux.WaitStatus) ExitStatus {
	if s.Signaled() {
		return ExitStatus{Signal: int(s.TerminationSignal())}
	}
	return ExitStatus{Code: int(s.ExitStatus())}
}

// Close frees what the instance holds. The program must have ended.
func (i *Instance) Close() error {
	i.closeOnce.Do(func() {
		ctx := i.k.SupervisorContext()
		if i.opts.Watchdog {
			i.dog.Stop()
		}
		i.stdio.release(ctx)
		i.k.Release()
		i.files.wait()
	})
	return nil
}

// isNotFound tells whether err means that there is no such program.
func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

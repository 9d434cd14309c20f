package libos

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/memutil"
	"gvisor.dev/gvisor/pkg/rand"
	"gvisor.dev/gvisor/pkg/ring0"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/host"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/tmpfs"
	"gvisor.dev/gvisor/pkg/sentry/inet"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/loader"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	_ "gvisor.dev/gvisor/pkg/sentry/platform/systrap" // registers the platform
	"gvisor.dev/gvisor/pkg/sentry/socket/netstack"
	_ "gvisor.dev/gvisor/pkg/sentry/syscalls/linux" // registers the system call table
	"gvisor.dev/gvisor/pkg/sentry/usage"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/sighandling"

	"junction/libos/boundary"
	"junction/libos/engine"
	"junction/libos/kthreads"
	tcpip "junction/libos/netstack"
	"junction/libos/shortcut"

	// The other socket families that programs may open.
	_ "gvisor.dev/gvisor/pkg/sentry/socket/netlink"
	_ "gvisor.dev/gvisor/pkg/sentry/socket/netlink/route"
	_ "gvisor.dev/gvisor/pkg/sentry/socket/netlink/uevent"
	_ "gvisor.dev/gvisor/pkg/sentry/socket/unix"
)

// initProcess sets up what the Sentry keeps per host process. The order
// matters: platforms dereference what ring0 and cpuid prepare, and memory
// accounting hangs without usage.Init.
var initProcess = sync.OnceValue(func() error {
	ring0.InitDefault() // initializes cpuid too
	if err := rand.Init(); err != nil {
		return fmt.Errorf("opening the random number source: %w", err)
	}
	if err := usage.Init(); err != nil {
		return fmt.Errorf("setting up memory accounting: %w", err)
	}
	if err := showHostMemory(); err != nil {
		return err
	}
	installSIGPIPE()
	return sighandling.IgnoreChildStop()
})

// showHostMemory makes programs see as much memory as this machine has:
// without it they would see 2 GiB, and size their heaps by it.
func showHostMemory() error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("reading the size of memory: %w", err)
	}
	total := uint64(info.Totalram) * uint64(info.Unit)
	usage.MinimumTotalMemoryBytes, usage.MaximumTotalMemoryBytes = total, total
	tmpfs.SetTotalHostMem(total)
	return nil
}

// newKernel makes the Sentry kernel, without file systems or programs. It also
// returns the page in which programs find the time.
func (i *Instance) newKernel(c *clocks, tree func() *boundary.Tree) (*kernel.Kernel, *kernel.VDSOParamPage, error) {
	k, opts := new(kernel.Kernel), &i.opts
	if err := initMemory(k); err != nil {
		return nil, nil, err
	}
	vdso, err := loader.PrepareVDSO(k.MemoryFile())
	if err != nil {
		return nil, nil, fmt.Errorf("preparing the vdso: %w", err)
	}
	timekeeper := kernel.NewTimekeeper()
	params := kernel.NewVDSOParamPage(k.MemoryFile(), vdso.ParamPage.FileRange())
	timekeeper.SetClocks(c, params)

	network, err := opts.Network()
	if err != nil {
		return nil, nil, err
	}
	if err := i.dropPrivileges(tree()); err != nil {
		return nil, nil, err
	}
	if k.Platform, err = newPlatform(i.engine.Name, opts); err != nil {
		return nil, nil, err
	}
	users := auth.NewRootUserNamespace()
	if err := k.Init(kernel.InitKernelArgs{
		FeatureSet:           features(),
		Timekeeper:           timekeeper,
		RootUserNamespace:    users,
		RootNetworkNamespace: inet.NewRootNamespace(netstack.NewStack(network, k.UniqueID()), &stackCreator{k}, users),
		ApplicationCores:     uint(opts.Kthreads),
		Vdso:                 vdso,
		VdsoParams:           params,
		RootUTSNamespace:     kernel.NewUTSNamespace(opts.Name, "(none)", users),
		RootIPCNamespace:     kernel.NewIPCNamespace(users),
		RootPIDNamespace:     kernel.NewRootPIDNamespace(users),
		MaxFDLimit:           kernel.MaxFdLimit,
	}); err != nil {
		return nil, nil, fmt.Errorf("initializing the kernel: %w", err)
	}
	return k, params, initHostMount(k)
}

// newPlatform opens an execution engine, with the bound on threads that opts
// want.
func newPlatform(name string, opts *Options) (platform.Platform, error) {
	constructor, err := platform.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("unknown engine %q: %w", name, err)
	}
	plat, err := constructor.New(platform.Options{ApplicationCores: opts.Kthreads})
	if err != nil {
		return nil, fmt.Errorf("starting engine %q: %w", name, err)
	}
	if p, ok := plat.(interface{ SetPolicy(engine.Policy) }); ok && opts.Policy != nil {
		p.SetPolicy(*opts.Policy)
	}
	return shortcut.Serve(kthreads.Limit(plat, kthreads.Options{Tokens: opts.Kthreads, Quantum: max(0, opts.Quantum)}))
}

// initMemory makes the memory file: all memory of all programs of the instance.
func initMemory(k *kernel.Kernel) error {
	const name = "junction-memory"
	fd, err := memutil.CreateMemFD(name, 0)
	if err != nil {
		return fmt.Errorf("creating the memory file: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	mf, err := pgalloc.NewMemoryFile(file, pgalloc.MemoryFileOpts{})
	if err != nil {
		file.Close()
		return fmt.Errorf("setting up the memory file: %w", err)
	}
	k.SetMemoryFile(mf)
	return nil
}

// initHostMount makes the mount that imported host files belong to.
func initHostMount(k *kernel.Kernel) error {
	fs, err := host.NewFilesystem(k.VFS())
	if err != nil {
		return fmt.Errorf("creating the host file system: %w", err)
	}
	defer fs.DecRef(k.SupervisorContext())
	k.SetHostMount(k.VFS().NewDisconnectedMount(fs, nil, &vfs.MountOptions{}))
	return nil
}

// stackCreator makes the stacks of network namespaces that programs create
// (unshare, clone): they have a loopback interface of their own and no more.
//
// +stateify savable
type stackCreator struct {
	k *kernel.Kernel
}

// CreateStack implements inet.NetworkStackCreator.CreateStack.
func (c *stackCreator) CreateStack() (inet.Stack, error) {
	network, err := tcpip.New(tcpip.Options{})
	if err != nil {
		return nil, err
	}
	return netstack.NewStack(network.Stack(), c.k.UniqueID()), nil
}

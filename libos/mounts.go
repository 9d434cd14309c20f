package libos

import (
	"fmt"
	"path"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/sentry/devices/memdev"
	"gvisor.dev/gvisor/pkg/sentry/devices/ttydev"
	"gvisor.dev/gvisor/pkg/sentry/devices/tundev"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/dev"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/devpts"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/devtmpfs"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/gofer"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/mqfs"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/overlay"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/proc"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/sys"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/tmpfs"
	"gvisor.dev/gvisor/pkg/sentry/inet"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
)

// registerFilesystems makes file system types and devices known to the kernel.
func registerFilesystems(k *kernel.Kernel) error {
	v := k.VFS()
	byUser := &vfs.RegisterFilesystemTypeOptions{AllowUserMount: true, AllowUserList: true}
	internal := &vfs.RegisterFilesystemTypeOptions{AllowUserList: true}
	for name, t := range map[string]vfs.FilesystemType{
		devpts.Name:   &devpts.FilesystemType{},
		devtmpfs.Name: &devtmpfs.FilesystemType{},
		overlay.Name:  &overlay.FilesystemType{},
		proc.Name:     &proc.FilesystemType{},
		sys.Name:      &sys.FilesystemType{},
		tmpfs.Name:    &tmpfs.FilesystemType{},
		mqfs.Name:     &mqfs.FilesystemType{},
	} {
		v.MustRegisterFilesystemType(name, t, byUser)
	}
	v.MustRegisterFilesystemType(dev.Name, &dev.FilesystemType{}, internal)
	v.MustRegisterFilesystemType(gofer.Name, &gofer.FilesystemType{}, internal)
	if err := memdev.Register(v); err != nil {
		return fmt.Errorf("registering memory devices: %w", err)
	}
	if err := ttydev.Register(v); err != nil {
		return fmt.Errorf("registering terminal devices: %w", err)
	}
	if tundev.IsNetTunSupported(inet.StackFromContext(k.SupervisorContext())) {
		if err := tundev.Register(v); err != nil {
			return fmt.Errorf("registering the tun device: %w", err)
		}
	}
	return nil
}

// mounter builds an instance's file tree.
type mounter struct {
	ctx   context.Context
	vfs   *vfs.VirtualFilesystem
	creds *auth.Credentials
	files *fileServer
	root  vfs.VirtualDentry
}

// mountTree builds the file tree: the host's under an overlay in memory, the
// usual kernel file systems, and the directories that are written through.
// The caller owns a reference to the namespace.
func mountTree(ctx context.Context, k *kernel.Kernel, files *fileServer, opts *Options) (*vfs.MountNamespace, error) {
	m := &mounter{ctx: ctx, vfs: k.VFS(), creds: auth.NewRootCredentials(k.RootUserNamespace()), files: files}
	ns, err := m.mountRoot(k, opts.Root)
	if err != nil {
		return nil, err
	}
	m.root = ns.Root(ctx)
	defer m.root.DecRef(ctx)
	if err := m.fill(opts); err != nil {
		ns.DecRef(ctx)
		return nil, err
	}
	return ns, nil
}

// fill mounts and writes what belongs over the root.
func (m *mounter) fill(opts *Options) error {
	if err := m.mountSystem(); err != nil {
		return err
	}
	if err := m.fixResolvConf(); err != nil {
		return err
	}
	for _, dir := range opts.ReadWrite {
		if err := m.mountReadWrite(dir); err != nil {
			return err
		}
	}
	return nil
}

// mountRoot makes the mount namespace, whose root is the overlay.
func (m *mounter) mountRoot(k *kernel.Kernel, dir string) (*vfs.MountNamespace, error) {
	lowerOpts, err := m.files.serve(dir, true)
	if err != nil {
		return nil, err
	}
	lower, err := m.vfs.MountDisconnected(m.ctx, m.creds, "", gofer.Name, lowerOpts)
	if err != nil {
		return nil, fmt.Errorf("root directory %s: %w (choose a readable directory with --rootfs)", dir, err)
	}
	defer lower.DecRef(m.ctx)
	upper, err := m.vfs.MountDisconnected(m.ctx, m.creds, "", tmpfs.Name, &vfs.MountOptions{
		GetFilesystemOptions: vfs.GetFilesystemOptions{
			InternalMount: true,
			InternalData:  tmpfs.FilesystemOpts{DisableDefaultSizeLimit: true},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("writable layer over %s: %w", dir, err)
	}
	defer upper.DecRef(m.ctx)
	upperRoot := vfs.MakeVirtualDentry(upper, upper.Root())
	lowerRoot := vfs.MakeVirtualDentry(lower, lower.Root())
	if err := m.copyOwner(upperRoot, lowerRoot); err != nil {
		return nil, fmt.Errorf("root directory %s: %w", dir, err)
	}
	return m.newNamespace(k, overlay.FilesystemOptions{UpperRoot: upperRoot, LowerRoots: []vfs.VirtualDentry{lowerRoot}})
}

// newNamespace mounts the overlay over an empty root: the root mount of a
// namespace itself can never be replaced.
func (m *mounter) newNamespace(k *kernel.Kernel, layers overlay.FilesystemOptions) (*vfs.MountNamespace, error) {
	ns, err := m.vfs.NewMountNamespace(m.ctx, m.creds, "rootfs", tmpfs.Name, &vfs.MountOptions{ReadOnly: true, Locked: true}, k)
	if err != nil {
		return nil, fmt.Errorf("creating the mount namespace: %w", err)
	}
	base := ns.Root(m.ctx)
	defer base.DecRef(m.ctx)
	mnt, err := m.vfs.MountDisconnected(m.ctx, m.creds, "root", overlay.Name, &vfs.MountOptions{
		GetFilesystemOptions: vfs.GetFilesystemOptions{InternalMount: true, InternalData: layers},
	})
	if err == nil {
		defer mnt.DecRef(m.ctx)
		err = m.vfs.ConnectMountAt(m.ctx, m.creds, mnt, &vfs.PathOperation{Root: base, Start: base})
	}
	if err != nil {
		ns.DecRef(m.ctx)
		return nil, fmt.Errorf("mounting the root overlay: %w", err)
	}
	return ns, nil
}

// copyOwner gives the upper layer's root the owner and mode of the lower's.
func (m *mounter) copyOwner(upper, lower vfs.VirtualDentry) error {
	const mask = linux.STATX_UID | linux.STATX_GID | linux.STATX_MODE
	st, err := m.vfs.StatAt(m.ctx, m.creds, &vfs.PathOperation{Root: lower, Start: lower}, &vfs.StatOptions{Mask: mask | linux.STATX_TYPE})
	if err != nil {
		return err
	}
	if st.Mode&linux.S_IFMT != linux.S_IFDIR {
		return linuxerr.ENOTDIR
	}
	return m.vfs.SetStatAt(m.ctx, m.creds, &vfs.PathOperation{Root: upper, Start: upper}, &vfs.SetStatOptions{
		Stat: linux.Statx{Mask: mask & st.Mask, UID: st.UID, GID: st.GID, Mode: st.Mode &^ linux.S_IFMT},
	})
}

// mountSystem mounts the kernel's file systems, as every Linux program expects
// them. /tmp and /run are the root's, under the overlay, so that what lies
// there (a program, a resolv.conf) is found; a root without /tmp gets one.
func (m *mounter) mountSystem() error {
	if _, err := m.stat("/tmp"); err != nil {
		if err := m.mount("/tmp", tmpfs.Name, &vfs.MountOptions{
			GetFilesystemOptions: vfs.GetFilesystemOptions{InternalMount: true, Data: "mode=01777"},
		}); err != nil {
			return err
		}
	}
	for _, s := range []struct {
		dir, fs, data string
		internal      any
	}{
		{"/proc", proc.Name, "", &proc.InternalData{}},
		{"/sys", sys.Name, "", &sys.InternalData{}},
		{"/dev", dev.Name, "", nil},
		{"/dev/pts", devpts.Name, "", nil},
		{"/dev/shm", tmpfs.Name, "mode=01777", nil},
	} {
		if err := m.mount(s.dir, s.fs, &vfs.MountOptions{
			GetFilesystemOptions: vfs.GetFilesystemOptions{InternalMount: true, Data: s.data, InternalData: s.internal},
		}); err != nil {
			return err
		}
	}
	return nil
}

func (m *mounter) stat(p string) (linux.Statx, error) {
	op := &vfs.PathOperation{Root: m.root, Start: m.root, Path: fspath.Parse(p), FollowFinalSymlink: true}
	return m.vfs.StatAt(m.ctx, m.creds, op, &vfs.StatOptions{Mask: linux.STATX_TYPE})
}

// mountReadWrite mounts host directory dir at the same path, without overlay.
func (m *mounter) mountReadWrite(dir string) error {
	opts, err := m.files.serve(dir, false)
	if err != nil {
		return err
	}
	return m.mount(dir, gofer.Name, opts)
}

// mount mounts a file system at dir, which it makes if need be.
func (m *mounter) mount(dir, fsName string, opts *vfs.MountOptions) error {
	mnt, err := m.vfs.MountDisconnected(m.ctx, m.creds, "", fsName, opts)
	if err != nil {
		return fmt.Errorf("mounting %s: %w", dir, err)
	}
	defer mnt.DecRef(m.ctx)
	if err := m.mkdirAll(dir); err != nil {
		return fmt.Errorf("making mount point %s: %w", dir, err)
	}
	target := &vfs.PathOperation{Root: m.root, Start: m.root, Path: fspath.Parse(dir), FollowFinalSymlink: true}
	if err := m.vfs.ConnectMountAt(m.ctx, m.creds, mnt, target); err != nil {
		return fmt.Errorf("mounting %s: %w", dir, err)
	}
	return nil
}

// mkdirAll makes dir and its parents in the instance, not on the host.
func (m *mounter) mkdirAll(dir string) error {
	return m.vfs.MkdirAllAt(m.ctx, path.Clean(dir), m.root, m.creds,
		&vfs.MkdirOptions{Mode: 0755, ForSyntheticMountpoint: true}, true /* mustBeDir */)
}

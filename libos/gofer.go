package libos

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/lisafs"
	"gvisor.dev/gvisor/pkg/sentry/checkpoint"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/gofer"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/unet"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/fsgofer"

	"junction/libos/boundary"
)

// openProcSelfFD gives the file server what its handlers reopen files through.
var openProcSelfFD = sync.OnceValue(func() error {
	return fsgofer.OpenProcSelfFD("/proc/self/fd")
})

// fileServer serves host directories to the gofer mounts of this instance,
// from goroutines of this process. The mount point's descriptor is donated
// (directfs), so that most operations are plain host system calls.
type fileServer struct {
	server *lisafs.Server
	tree   *boundary.Tree
}

func newFileServer(tree *boundary.Tree) (*fileServer, error) {
	if err := openProcSelfFD(); err != nil {
		return nil, err
	}
	// Creation modes come from the program, already masked by its own umask.
	unix.Umask(0)
	return &fileServer{server: lisafs.NewServer(), tree: tree}, nil
}

// serve makes host directory path, the root or one that is written, available and returns the options of a
// gofer mount of it.
func (f *fileServer) serve(path string, readOnly bool) (*vfs.MountOptions, error) {
	ours, theirs, err := unet.SocketPair(false)
	if err != nil {
		return nil, fmt.Errorf("making a connection to the file server: %w", err)
	}
	impl := fsgofer.NewConnectionImpl(&fsgofer.Config{
		HostUDS:            config.HostUDSNone,
		HostFifo:           config.HostFifoNone,
		DonateMountPointFD: true,
	})
	at := f.tree.Root(path)
	if !readOnly {
		at = f.tree.Writable(path)
	}
	conn, err := f.server.CreateConnection(ours, at, fsgofer.ConnectionOpts(readOnly), impl)
	if err != nil {
		ours.Close()
		theirs.Close()
		return nil, fmt.Errorf("serving %s: %w", path, err)
	}
	f.server.StartConnection(conn)
	fd, err := theirs.Release()
	if err != nil {
		return nil, fmt.Errorf("serving %s: %w", path, err)
	}
	return &vfs.MountOptions{
		ReadOnly: readOnly,
		GetFilesystemOptions: vfs.GetFilesystemOptions{
			InternalMount: true,
			Data:          goferOptions(fd, readOnly),
			InternalData:  gofer.InternalFilesystemOptions{UniqueID: checkpoint.ResourceID{Path: path}},
		},
	}, nil
}

// goferOptions are the options of a gofer mount behind fd. A read-only lower
// layer is cached as if nobody else wrote to it; a directory that is written
// through is revalidated, so that changes made on the host are seen.
func goferOptions(fd int, readOnly bool) string {
	n := strconv.Itoa(fd)
	opts := []string{"trans=fd", "rfdno=" + n, "wfdno=" + n, "directfs", "disable_fifo_open"}
	if readOnly {
		opts = append(opts, "overlayfs_stale_read")
	} else {
		opts = append(opts, "cache=remote_revalidating")
	}
	return strings.Join(opts, ",")
}

// wait returns when all mounts have been released.
func (f *fileServer) wait() {
	f.server.Wait()
	f.server.Destroy()
}

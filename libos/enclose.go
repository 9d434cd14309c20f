package libos

import (
	"errors"
	"log/slog"
	"sync"

	"junction/libos/boundary"
	"junction/libos/engine"
)

// openTree begins to make the tree of o's host directories and returns a
// function that waits for it. It is nil where this process may not make one.
func openTree(o Options) func() *boundary.Tree {
	if o.Boundary == boundary.Off {
		return func() *boundary.Tree { return nil }
	}
	opened := sync.OnceValue(func() *boundary.Tree {
		t, err := boundary.NewTree(o.Root, o.ReadWrite)
		switch {
		case errors.Is(err, boundary.ErrPrivilege):
			o.Logger.Info("the files that the process can reach are those of its user", "reason", err)
		case err != nil:
			o.Logger.Warn("the files that the process can reach are those of its user", "reason", err)
		}
		return t
	})
	go opened()
	return opened
}

// dropPrivileges takes from this process what only set-up needed, and leaves
// it the files in tree. The network is up, and no platform has made processes
// that would keep more.
func (i *Instance) dropPrivileges(tree *boundary.Tree) error {
	if i.opts.Boundary == boundary.Off {
		return nil
	}
	i.tree = tree
	if err := tree.Enter(); err != nil {
		return err
	}
	return boundary.DropPrivileges(i.opts.UID, i.opts.GID)
}

// enclose restricts this process to the host calls that an instance makes. The
// program is loaded and has not run yet.
func (i *Instance) enclose() error {
	if i.opts.Boundary == boundary.Off {
		i.opts.Logger.Warn("no boundary: the process keeps its privileges and may make any host call")
		return nil
	}
	f, err := boundary.Compile(i.needs(), i.opts.Boundary)
	if err != nil {
		return err
	}
	i.hostCalls = f.Calls()
	i.opts.Logger.Debug("boundary", slog.Int("host_calls", f.Calls()), slog.String("violation", string(i.opts.Boundary)))
	return f.Install()
}

// needs tells what this instance asks of the host from now on.
func (i *Instance) needs() boundary.Needs {
	return boundary.Needs{
		Write:        len(i.opts.ReadWrite) > 0,
		Systrap:      true, // alone, or for what forks under inproc
		SystrapLater: i.engine.Name != engine.Systrap,
	}
}

package libos

import (
	"log/slog"

	"junction/libos/boundary"
	"junction/libos/engine"
)

// dropPrivileges takes from this process what only set-up needed. The network
// is up, and no platform has made processes that would keep privileges.
func dropPrivileges(o *Options) error {
	if o.Boundary == boundary.Off {
		return nil
	}
	return boundary.DropPrivileges(o.UID, o.GID)
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

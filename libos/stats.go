package libos

import (
	"golang.org/x/sys/unix"

	"junction/libos/engine"
	"junction/libos/kthreads"
	"junction/libos/shortcut"
)

// Stats returns what the instance has used so far.
func (i *Instance) Stats() Stats {
	s := Stats{Platform: i.engine.Name, Reason: i.engine.Reason, HostCalls: i.hostCalls}
	serving := i.k.Platform.(*shortcut.Platform) // see newPlatform
	s.Syscalls = serving.Stats().Calls
	shared := serving.Inner().(*kthreads.Platform)
	s.Kthreads = shared.Stats()
	if p, ok := shared.Inner().(interface{ Stats() engine.Stats }); ok {
		spaces := p.Stats()
		s.AddressSpaces = &spaces
	}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if unix.Getrusage(who, &r) != nil {
			continue
		}
		s.UserSeconds += seconds(r.Utime)
		s.SystemSeconds += seconds(r.Stime)
		s.MaxRSSBytes = max(s.MaxRSSBytes, uint64(r.Maxrss)*1024)
	}
	return s
}

func seconds(t unix.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

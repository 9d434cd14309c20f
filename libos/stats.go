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
	s.Syscalls = i.serving().Stats().Calls
	shared := i.Kthreads()
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

func (i *Instance) serving() *shortcut.Platform { return i.k.Platform.(*shortcut.Platform) } // see newPlatform

// Limit returns Options.Kthreads, or what it was by default.
func (i *Instance) Limit() int { return i.opts.Kthreads }

// Kthreads returns what bounds how many threads of programs execute at once;
// Options.Kthreads do at first.
func (i *Instance) Kthreads() *kthreads.Platform { return i.serving().Inner().(*kthreads.Platform) }

func seconds(t unix.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

package sim

import (
	"errors"
	"fmt"
	"io"

	cs "junction/coresched"
)

// Limits of Config.
const (
	MaxCores     = 512
	MaxInstances = 4096
)

// ErrConfig: what cannot be simulated.
var ErrConfig = errors.New("cannot simulate")

// Config is one run.
type Config struct {
	Policy cs.Policy
	// Cores that tasks run on, 1 to MaxCores.
	Cores int
	Cost  Cost
	Seed  uint64
	// Instances are what runs, 1 to MaxInstances.
	Instances []Instance
	// Warmup is how many requests end before counting begins, Requests how
	// many are counted; 0: no limit.
	Warmup, Requests int
	// Horizon ends the run at this time; 0: no limit. A run needs one of the
	// limits, or sources that end.
	Horizon cs.Time
	// QueueLen of the enclave; 0: its default.
	QueueLen int
	// Trace gets a line for each event, if it is not nil.
	Trace io.Writer
}

// Instance is a source of work.
type Instance struct {
	// Hints of its tasks. Group is set by Run.
	Hints cs.Hints
	// Kthreads serve the instance's requests; 0: each has a thread of its own.
	Kthreads int
	// Source of requests; nil: the kthreads compute for ever.
	Source Source
	// Hinted: the instance's program says in a table of hints which of its requests
	// are long, and their deadlines. Each request has a thread of its own then.
	Hinted bool
}

func (c *Config) check() error {
	switch {
	case c.Policy == nil:
		return fmt.Errorf("%w: no policy", ErrConfig)
	case c.Cores < 1 || c.Cores > MaxCores:
		return fmt.Errorf("%w: %d cores; take 1 to %d", ErrConfig, c.Cores, MaxCores)
	case len(c.Instances) < 1 || len(c.Instances) > MaxInstances:
		return fmt.Errorf("%w: %d instances; take 1 to %d", ErrConfig, len(c.Instances), MaxInstances)
	case c.Warmup < 0 || c.Requests < 0 || c.Horizon < 0:
		return fmt.Errorf("%w: a negative limit", ErrConfig)
	}
	kthreads := 0
	for i, in := range c.Instances {
		if kthreads += min(in.Kthreads, cs.MaxTasks+1); kthreads > cs.MaxTasks {
			return fmt.Errorf("%w: more than %d kthreads in all", ErrConfig, cs.MaxTasks)
		}
		if in.Source == nil && in.Kthreads <= 0 || in.Kthreads < 0 {
			return fmt.Errorf("%w: instance %d has neither requests nor kthreads", ErrConfig, i)
		}
		if in.Hinted && in.Kthreads > 0 {
			return fmt.Errorf("%w: instance %d gives hints of threads, and has kthreads", ErrConfig, i)
		}
	}
	return nil
}

package libos

import (
	"time"

	"gvisor.dev/gvisor/pkg/sentry/kernel"
	sentrytime "gvisor.dev/gvisor/pkg/sentry/time"
)

// The vdso tells a program the time without a system call once the rate of the
// processor's cycle counter is known, for which the Sentry compares it with the
// host's clock twice. Its second look is a second after the first: too late for
// programs that ask for the time at their start. So clocks look first when the
// instance begins to boot, and again when the program is about to start.

// calibrationTime is how far the first two looks must at least be apart. A look
// is right within half a microsecond, mostly within 50 ns: the rate is then known
// to 100 ppm, mostly to 10, until the Sentry's update a second later.
const calibrationTime = 5 * time.Millisecond

// clocks are the Sentry's clocks, which are calibrated while an instance boots.
type clocks struct {
	*sentrytime.CalibratedClocks
	began time.Time
}

// newClocks makes clocks, and looks for the first time.
func newClocks() *clocks {
	c := &clocks{CalibratedClocks: sentrytime.NewCalibratedClocks(), began: time.Now()}
	c.CalibratedClocks.Update()
	return c
}

// Update implements sentrytime.Clocks.Update. Before calibrationTime has passed
// it does nothing, and the clocks are not ready.
func (c *clocks) Update() (monotonic sentrytime.Parameters, monotonicOk bool, realtime sentrytime.Parameters, realtimeOk bool) {
	if time.Since(c.began) < calibrationTime {
		return
	}
	return c.CalibratedClocks.Update()
}

// refreshClocks updates the clocks now, and each second from now on. The updater
// begins with an update, and pausing it waits for that.
func refreshClocks(k *kernel.Kernel, params *kernel.VDSOParamPage) {
	for range 2 {
		k.Timekeeper().PauseUpdates()
		k.Timekeeper().ResumeUpdates(params)
	}
}

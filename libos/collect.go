package libos

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A small heap is collected after every few megabytes of garbage, which a
// program with many system calls makes some hundred times a second. While that
// is so, it may hold more garbage.
const (
	usualPercent = 100      // Go's own: as much garbage as there is live memory
	mostPercent  = 400      // of live memory
	mostGarbage  = 32 << 20 // bytes; more only if the live memory is that large
	soon         = time.Second
)

// collector sets how much garbage is collected at once.
type collector struct {
	percent int
	last    time.Time
	set     func(percent int) int // debug.SetGCPercent
}

// paceCollector makes the garbage collector adapt to how busy the instance is,
// unless the user has said by GOGC what it shall do.
func paceCollector() {
	if os.Getenv("GOGC") == "" {
		c := &collector{percent: usualPercent, last: time.Now(), set: debug.SetGCPercent}
		c.await()
	}
}

// await has collected called after the next collection.
func (c *collector) await() {
	type sentinel struct{ _ *sentinel } // with a pointer, or it shares its memory with others
	runtime.AddCleanup(new(sentinel), (*collector).collected, c)
}

// collected is called after each collection.
func (c *collector) collected() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	now := time.Now()
	percent := nextPercent(c.percent, now.Sub(c.last), live[0].Value.Uint64())
	if percent != c.percent {
		c.set(percent)
	}
	c.percent, c.last = percent, now
	c.await()
}

// nextPercent returns how much garbage there may be, in percent of the live
// memory, in bytes, when there have been percent and the last two collections
// were since apart.
func nextPercent(percent int, since time.Duration, live uint64) int {
	if since >= soon {
		return usualPercent
	}
	most := mostPercent
	if limit := mostGarbage * 100 / max(live, 1); limit < mostPercent {
		most = max(int(limit), usualPercent)
	}
	return min(2*percent, most)
}

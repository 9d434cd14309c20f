package live

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// Whether a process that shows no sign of life stands still, or only was given no
// core on a machine with much to do, its threads tell: time counts against it
// while none of them wants a core (all sleep, or are stopped), and else the CPU
// time that it uses. Time in which it waits for a core, or for a disk, does not,
// nor does time in which whoever looks was given no core itself.

const (
	// beatEvery is how often the actuator gives the guard a sign of life, and
	// looks for one of policies.
	beatEvery = 10 * time.Millisecond
	// standstill is for how much of such time a process may show no sign of life.
	standstill = 50 * time.Millisecond
	// busyStandstill is that of a process which does other things beside.
	busyStandstill = 500 * time.Millisecond
)

// suspect is a process that shows no sign of life.
type suspect struct {
	pid    int
	looked time.Time // zero: it does show signs of life
	used   time.Duration
	asleep time.Duration // counted against it
	busy   time.Duration // CPU time
}

// clear is for a sign of life.
func (s *suspect) clear() { *s = suspect{pid: s.pid} }

// look counts what has passed since the last look. The first one only begins.
func (s *suspect) look(now time.Time) {
	wants, used := threadsOf(s.pid)
	if !s.looked.IsZero() {
		if !wants {
			s.asleep += min(now.Sub(s.looked), 2*beatEvery)
		}
		s.busy += max(used-s.used, 0)
	}
	s.looked, s.used = now, used
}

// threadsOf tells whether a thread of a process wants a core, or waits for a
// disk, and how much CPU time those that it has have used.
func threadsOf(pid int) (wants bool, used time.Duration) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	list, err := os.Open(dir)
	if err != nil {
		return false, 0
	}
	defer list.Close()
	names, _ := list.Readdirnames(-1) // of a process that ends: some
	for _, n := range names {
		if b, err := os.ReadFile(dir + "/" + n + "/stat"); err == nil {
			s, err := parseStat(b)
			wants = wants || err == nil && (s.state == 'R' || s.state == 'D')
		}
		if b, err := os.ReadFile(dir + "/" + n + "/schedstat"); err == nil {
			used += runTime(b)
		}
	}
	return wants, used
}

// runTime reads the first number of /proc/PID/schedstat.
func runTime(b []byte) time.Duration {
	first, _, _ := bytes.Cut(b, []byte(" "))
	v, err := strconv.ParseInt(string(first), 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(v)
}

// reading watches over a policy: whether it reads what it is sent.
type reading struct {
	suspect
	read uint64
	seen bool // what it has not read now it had not read at the last beat
}

// check looks at a policy at a beat, and says whether it stands still. All this
// costs nothing to speak of unless a policy is late.
func (r *reading) check(now time.Time, n *enclave) bool {
	read, all, err := n.driver.Progress()
	if err != nil {
		return false // who serves it finds out too
	}
	if all && n.e.Wanting() {
		_ = n.driver.Ping() // likewise
	}
	if all || read != r.read || r.pid != n.process.PID() {
		*r = reading{suspect: suspect{pid: n.process.PID()}, read: read, seen: !all}
		return false
	}
	if !r.seen {
		r.seen = true
		return false
	}
	r.look(now)
	return r.asleep+r.busy > standstill
}

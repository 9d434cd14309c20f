package live

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// resumes are moments at which a thread found that it had not run for a while, and
// the last one before it slept: shared with the process that measures.
type resumes struct {
	count atomic.Uint64
	at    [1024]atomic.Int64
	slept atomic.Int64
}

// pause is what a thread takes for not having run: more than reading the clock
// takes, less than a switch to another thread and back.
const pause = 2 * time.Microsecond

// stamp runs two threads that look at the clock without end, and write down in
// the memory of descriptor 3 when they resume. In turns they sleep, if they are
// told to by an argument.
func stamp() error {
	all, err := mapResumes(3)
	if err != nil {
		return err
	}
	sleeps := len(os.Args) > 1
	for i := range all {
		go func() {
			runtime.LockOSThread()
			fmt.Println(unix.Gettid())
			all[i].run(sleeps)
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

func (r *resumes) run(sleeps bool) {
	began := clock()
	for last := began; ; {
		now := clock()
		if now-last > pause {
			n := r.count.Load()
			r.at[n%uint64(len(r.at))].Store(int64(now))
			r.count.Store(n + 1)
		}
		last = now
		if sleeps && now-began > 300*time.Microsecond {
			r.slept.Store(int64(clock()))
			ts := unix.NsecToTimespec(int64(time.Millisecond))
			_ = unix.Nanosleep(&ts, nil)
			began = clock()
		}
	}
}

func startStamps(b *testing.B, args ...string) (*[2]resumes, []int) {
	fd, err := unix.MemfdCreate("stamps", unix.MFD_CLOEXEC)
	require.NoError(b, err)
	file := os.NewFile(uintptr(fd), "stamps")
	defer file.Close()
	require.NoError(b, file.Truncate(resumesSize))
	all, err := mapResumes(fd)
	require.NoError(b, err)
	_, _, out := converse(b, []*os.File{file}, append(role("stamps"), args...)...)
	return all, readTIDs(b, out, len(all))
}

func readTIDs(b *testing.B, out *bufio.Scanner, n int) (tids []int) {
	for len(tids) < n && out.Scan() {
		tid, err := strconv.Atoi(out.Text())
		require.NoError(b, err)
		tids = append(tids, tid)
	}
	require.Len(b, tids, n)
	return tids
}

func benchActuator(b *testing.B) *Actuator {
	if ns, err := os.Readlink("/proc/self/ns/pid"); err == nil && ns != initialPIDNamespace {
		b.Skip("this is a PID namespace of its own; BPF programs see the host's numbers")
	}
	a, err := New(options())
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, a.Close()) })
	require.NoError(b, a.Create("e", oneCore(b), 0))
	return a
}

func report(b *testing.B, all []time.Duration) {
	b.ReportMetric(0, "ns/op") // means say little here
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	us := func(q int) float64 { return float64(all[(len(all)-1)*q/100]) / 1e3 }
	b.ReportMetric(us(10), "p10-µs") // on a machine with much else to do
	b.ReportMetric(us(50), "p50-µs")
	b.ReportMetric(us(99), "p99-µs")
}

// A core taken from a thread that goes on computing and given to another one that
// wants it: what the actuator's part takes, and from the decision to the first
// instruction. The benchmark is the policy.
func BenchmarkForced(b *testing.B) {
	a := benchActuator(b)
	all, tids := startStamps(b)
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.enclaves["e"]
	require.NoError(b, n.e.Attach(clock(), false))
	defer func() { n.e.Detach(clock()); a.carryOut() }()
	core := oneCore(b)
	tasks := [2]cs.Task{}
	for i, tid := range tids {
		require.NoError(b, a.push(n, tid))
		a.wakes(a.threads[tid], true)
		tasks[i] = a.threads[tid].task
	}
	n.e.Rescan(clock(), nil)
	var took, carried []time.Duration
	for i := 0; b.Loop(); i++ {
		who := i % 2
		x := []cs.Txn{{CPU: core.Next(0), Task: tasks[who], TaskSeq: n.e.Status(clock(), tasks[who]).Seq}}
		from := clock()
		n.e.Commit(from, cs.NoCPU, x)
		a.carryOut()
		carried = append(carried, clock()-from)
		require.Equal(b, cs.Complete, x[0].Result)
		if d, ok := all[who].after(from); ok {
			took = append(took, d)
		}
	}
	slices.Sort(carried)
	b.ReportMetric(float64(carried[len(carried)/2])/1e3, "carried-µs")
	report(b, took)
}

// after waits for the first resumption after from. Without one the thread was
// running already.
func (r *resumes) after(from time.Duration) (time.Duration, bool) {
	for deadline := clock() + 50*time.Millisecond; clock() < deadline; {
		n := r.count.Load()
		for k := n; k > 0 && n-k < 8; k-- {
			if at := time.Duration(r.at[(k-1)%uint64(len(r.at))].Load()); at < from {
				break
			} else if k == 1 || time.Duration(r.at[(k-2)%uint64(len(r.at))].Load()) < from {
				return at - from, true
			}
		}
	}
	return 0, false
}

// A thread that goes to sleep leaves its core to one that waits: from its last
// look at the clock to the other one's first.
func BenchmarkCooperative(b *testing.B) {
	a := benchActuator(b)
	all, tids := startStamps(b, "sleeps")
	_, err := a.SetPolicy("e", "fifo-central", nil)
	require.NoError(b, err)
	require.NoError(b, a.Push("e", tids))
	var took []time.Duration
	seen := [2]uint64{}
	for b.Loop() {
		for i := 0; ; i = 1 - i {
			n := all[i].count.Load()
			if n == seen[i] {
				continue
			}
			seen[i] = n
			// Resumed after the other one slept, and before it woke: handed over.
			d := all[i].at[(n-1)%uint64(len(all[i].at))].Load() - all[1-i].slept.Load()
			if d > 0 && d < int64(time.Millisecond) {
				took = append(took, time.Duration(d))
				break
			}
		}
	}
	report(b, took)
}

// cpuOf is the CPU time of processes so far.
func cpuOf(pids ...int) (sum time.Duration) {
	for _, pid := range pids {
		_, used := threadsOf(pid)
		sum += used
	}
	return sum
}

// idle runs threads that wake once in a second and sleep again.
func idle() error {
	n, err := strconv.Atoi(os.Args[1])
	if err != nil {
		return err
	}
	for i := range n {
		go func() {
			runtime.LockOSThread()
			fmt.Println(unix.Gettid())
			ts := unix.NsecToTimespec(int64(time.Second) * int64(i) / int64(n))
			_ = unix.Nanosleep(&ts, nil)
			for ts = unix.NsecToTimespec(int64(time.Second)); ; {
				_ = unix.Nanosleep(&ts, nil)
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// What the scheduler costs while 10, 100 and 1,000 threads are nearly idle: CPU
// time of actuator, policy and guard, in milliseconds a second.
func BenchmarkIdle(b *testing.B) {
	for _, n := range []int{0, 10, 100, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			a := benchActuator(b)
			_, err := a.SetPolicy("e", "fifo-central", nil)
			require.NoError(b, err)
			if n > 0 {
				_, _, out := converse(b, nil, append(role("idle"), strconv.Itoa(n))...)
				require.NoError(b, a.Push("e", readTIDs(b, out, n)))
			}
			time.Sleep(time.Second) // in which they come to rest: what is measured is a rate
			s, err := a.Enclave("e")
			require.NoError(b, err)
			pids := []int{os.Getpid(), s.PID, guardOf(a)}
			from, used := time.Now(), cpuOf(pids...)
			for b.Loop() {
				time.Sleep(100 * time.Millisecond)
			}
			per := float64(cpuOf(pids...)-used) / float64(time.Since(from))
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(1000*per, "ms/s")
		})
	}
}

package live

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// execute has a thread that is not its process's first one execute the workers'
// program, on a word.
func execute() error {
	said := make(chan error)
	go func() {
		runtime.LockOSThread()
		for unix.Gettid() == os.Getpid() { // the first one is busy with this
			other := make(chan struct{})
			go func() { runtime.LockOSThread(); close(other); select {} }()
			<-other
		}
		fmt.Println(unix.Gettid())
		bufio.NewScanner(os.Stdin).Scan()
		said <- unix.Exec(os.Args[0], os.Args[:1], []string{roleEnv + "=worker"})
	}()
	runtime.LockOSThread()
	return <-said
}

// makeThreads makes threads that last, one after the other, on a word.
func makeThreads() {
	there := make(chan struct{})
	last := func() { runtime.LockOSThread(); close(there); select {} }
	go last() // Go has a thread for making others from now on
	<-there
	fmt.Println("ready")
	in := bufio.NewReader(os.Stdin)
	_, _ = in.ReadString('\n')
	go func() {
		for range 3000 {
			there = make(chan struct{})
			go last()
			<-there
			time.Sleep(2 * time.Millisecond)
		}
	}()
	_, _ = io.Copy(io.Discard, in)
}

// The actuator is killed, or stands still, while threads make others: those of
// which nobody told the guard are restored, too.
func TestStraysAreRestored(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGSTOP} {
		t.Run(unix.SignalName(signal), func(t *testing.T) {
			needHost(t)
			made, in, out := converse(t, nil, role("maker")...)
			require.True(t, out.Scan())
			tids, before := []int(nil), original{}
			for tid := range threadsInProc(t, made.Process.Pid) {
				before = originals(t, []int{tid})[0]
				tids = append(tids, tid)
			}
			cmd, _ := startActuator(t, oneCore(t), tids)
			_, err := io.WriteString(in, "go\n")
			require.NoError(t, err)
			eventually(t, "others are made, and taken", func() bool {
				all, taken := threadsInProc(t, made.Process.Pid), 0
				for tid := range all {
					if o, err := readOriginal(tid); err == nil && o != before {
						taken++
					}
				}
				return len(all) > 30 && taken > len(all)/2
			})
			require.NoError(t, cmd.Process.Signal(signal))
			eventually(t, "all are restored", func() bool {
				for tid := range threadsInProc(t, made.Process.Pid) {
					if o, err := readOriginal(tid); err == nil && o != before {
						return false
					}
				}
				return true
			})
		})
	}
}

// inProc tells whether an actuator has those threads of a process that /proc has.
func inProc(t *testing.T, a *Actuator, pid int) bool {
	want, got := threadsInProc(t, pid), a.Threads()
	for _, s := range got {
		if !want[s.TID] {
			return false
		}
	}
	return len(got) == len(want)
}

// A thread that executes a program gets another number. It is still in the enclave,
// and is restored in the end.
func TestThreadExecutes(t *testing.T) {
	a := newActuator(t)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err := a.SetPolicy("e", "fifo-central", nil)
	require.NoError(t, err)
	cmd, in, out := converse(t, nil, role("execer")...)
	require.True(t, out.Scan())
	tid, err := strconv.Atoi(out.Text())
	require.NoError(t, err)
	require.NotEqual(t, cmd.Process.Pid, tid)
	before := originals(t, []int{tid})
	require.NoError(t, a.Push("e", []int{tid}))
	_, err = io.WriteString(in, "go\n")
	require.NoError(t, err)
	var tids []int
	for len(tids) < workers && out.Scan() {
		n, err := strconv.Atoi(out.Text())
		require.NoError(t, err)
		tids = append(tids, n)
	}
	require.Len(t, tids, workers)
	eventually(t, "the enclave has all threads", func() bool { return inProc(t, a, cmd.Process.Pid) })
	progress(t, tids)
	require.NoError(t, a.Destroy("e"))
	for n := range threadsInProc(t, cmd.Process.Pid) {
		asBefore(t, []int{n}, before)
	}
}

// A thread that nobody can take does not keep those before it from being scheduled.
func TestPushOfSome(t *testing.T) {
	a := newActuator(t)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err := a.SetPolicy("e", "fifo-central", nil)
	require.NoError(t, err)
	burner := child(t, "/bin/sh", "-c", "while :; do :; done")
	require.ErrorIs(t, a.Push("e", []int{burner.Process.Pid, 1 << 30}), ErrThread)
	eventually(t, "it runs", func() bool { return a.Threads()[0].State == "running" })
}

// When events are lost no thread is: those that were made meanwhile are found.
func TestEventsLost(t *testing.T) {
	needHost(t)
	room := ringSize
	ringSize = uint32(os.Getpagesize())
	a, err := New(options())
	ringSize = room
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err = a.SetPolicy("e", "sol", nil)
	require.NoError(t, err)
	for a.watch.losses() == 0 {
		cmd, in, out := converse(t, nil, role("crowd")...)
		require.True(t, out.Scan())
		pid := cmd.Process.Pid
		var tids []int
		for tid := range threadsInProc(t, pid) {
			tids = append(tids, tid)
		}
		before := originals(t, tids[:1])
		for _, tid := range tids {
			_ = a.Push("e", []int{tid}) // one in the enclave may have made it
		}
		_, err = io.WriteString(in, "go\n")
		require.NoError(t, err)
		require.True(t, out.Scan())
		eventually(t, "all are found", func() bool { return inProc(t, a, pid) })
		require.NoError(t, a.Destroy("e"))
		for tid := range threadsInProc(t, pid) {
			asBefore(t, []int{tid}, before)
		}
		_ = cmd.Process.Kill()
		require.NoError(t, a.Create("e", oneCore(t), 0))
		_, err = a.SetPolicy("e", "sol", nil)
		require.NoError(t, err)
	}
}

// What is remembered of threads that have left does not grow without end while
// others leave.
func TestFormerIsForgotten(t *testing.T) {
	a := Actuator{former: map[int]original{}}
	for tid := range 100 * formerKept {
		a.former[tid] = original{}
		_, ok := a.formerly(max(0, tid-formerKept/2))
		require.True(t, ok)
		a.ageFormer()
		require.LessOrEqual(t, len(a.former)+len(a.elder), 2*formerKept)
	}
}

package live

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// crowdSize is how many threads ghOSt's simple_exp makes.
const crowdSize = 1000

// crowd is ghOSt's simple_exp: on a word it makes threads that compute a little,
// sleep a little, and wait for another word to end.
func crowd() {
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	in.Scan()
	end := make(chan struct{})
	var here, gone sync.WaitGroup
	here.Add(crowdSize)
	for range crowdSize {
		gone.Go(func() {
			runtime.LockOSThread() // and never unlocks: the thread ends with it
			for x := range 20_000 {
				runtime.KeepAlive(x)
			}
			time.Sleep(time.Millisecond)
			here.Done()
			<-end
		})
	}
	here.Wait()
	fmt.Println("all here")
	in.Scan()
	close(end)
	gone.Wait()
	fmt.Println("all gone")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// threadsInProc lists a process's threads as /proc has them.
func threadsInProc(t *testing.T, pid int) map[int]bool {
	dir, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	require.NoError(t, err)
	all := map[int]bool{}
	for _, e := range dir {
		tid, err := strconv.Atoi(e.Name())
		require.NoError(t, err)
		all[tid] = true
	}
	return all
}

// Short-lived threads are counted right: the enclave has those that /proc has, all
// and no others, while a thousand are there and after they have ended.
func TestCrowd(t *testing.T) {
	a := newActuator(t)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err := a.SetPolicy("e", "sol", nil)
	require.NoError(t, err)
	cmd, in, out := converse(t, nil, role("crowd")...)
	expect := func(word string) {
		require.True(t, out.Scan())
		require.Equal(t, word, out.Text())
	}
	expect("ready")
	pid := cmd.Process.Pid
	pushed := map[int]bool{}
	for len(pushed) < len(threadsInProc(t, pid)) { // what threads that are in make is in
		for tid := range threadsInProc(t, pid) {
			if err := a.Push("e", []int{tid}); !pushed[tid] && err != nil {
				require.ErrorIs(t, err, ErrRefused, "it is in already")
			}
			pushed[tid] = true
		}
	}
	agree := func() bool {
		want, got := threadsInProc(t, pid), a.Threads()
		for _, s := range got {
			if !want[s.TID] {
				return false
			}
		}
		return len(got) == len(want)
	}
	eventually(t, "the first are counted", agree)
	_, err = io.WriteString(in, "go\n")
	require.NoError(t, err)
	expect("all here")
	eventually(t, "all are counted", agree)
	require.Greater(t, len(a.Threads()), crowdSize)

	require.NoError(t, unix.Kill(enclaveOf(t, a, "e").PID, unix.SIGKILL))
	eventually(t, "its end is noticed", func() bool { return !enclaveOf(t, a, "e").AgentOnline })
	t.Logf("policy killed: %d threads restored in %v µs", enclaveOf(t, a, "e").Tasks, enclaveOf(t, a, "e").RestoredUS)
	_, err = a.SetPolicy("e", "fifo-central", nil)
	require.NoError(t, err)
	_, err = io.WriteString(in, "end\n")
	require.NoError(t, err)
	expect("all gone")
	eventually(t, "none too many is left", func() bool { return len(threadsInProc(t, pid)) < crowdSize/2 && agree() })
	s := enclaveOf(t, a, "e")
	require.Equal(t, s.Entered, uint64(s.Tasks)+s.Left)
	require.GreaterOrEqual(t, s.Entered, uint64(crowdSize)+1)
	t.Logf("%d threads entered, %d are left; %d messages, %d rescans", s.Entered, s.Tasks, s.Messages, s.Rescans)
}

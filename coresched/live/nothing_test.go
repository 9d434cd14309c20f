package live

import (
	"os/exec"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	cs "junction/coresched"
	"junction/coresched/instance"
)

// TestNothingToDo: instances that have nothing to do hold no core, and nobody
// does anything because of them: they hear no ring, nothing on their pages
// changes, and the policy is told and decides nothing. So it is from when they
// come, and again after each has had something to do.
func TestNothingToDo(t *testing.T) {
	const many = 10
	a, cores := machineWith(t)
	var takers []*instance.Taker
	var heard atomic.Int64
	for i := range many {
		sleeper := exec.Command("sleep", "1000")
		require.NoError(t, sleeper.Start())
		t.Cleanup(func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() })
		g, files, err := instance.NewGiver(1)
		require.NoError(t, err)
		taker, err := instance.NewTaker(files)
		require.NoError(t, err)
		takers = append(takers, taker)
		class := cs.Class(i % 2)
		require.NoError(t, a.Join("e", g, InstanceOptions{Name: strconv.Itoa(i), PID: sleeper.Process.Pid, Kthreads: cores.Len(), Class: class}))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for taker.Wait() == nil {
				heard.Add(1)
				taker.Settle(taker.Grant().Seq)
			}
		}()
		t.Cleanup(func() {
			taker.Silence()
			<-ended
			require.NoError(t, taker.Close())
		})
	}
	type quiet struct {
		heard  int64
		grants []instance.Grant
		beats  []uint64
		counts cs.Counts
		all    []InstanceStatus
	}
	look := func() (q quiet) {
		for _, taker := range takers {
			q.grants, q.beats = append(q.grants, taker.Grant()), append(q.beats, taker.Beat())
		}
		q.heard, q.counts, q.all = heard.Load(), enclaveOf(t, a, "e").Counts, a.Instances()
		return q
	}
	idle := func() {
		var before quiet
		eventually(t, "all has come to rest", func() bool {
			before = look()
			time.Sleep(20 * beatEvery)
			for _, s := range before.all {
				if s.Want > 0 || s.Cores != "" {
					return false
				}
			}
			return before.counts == look().counts && before.heard == heard.Load()
		})
		time.Sleep(200 * beatEvery) // in which whoever polls would
		require.Equal(t, before, look())
	}
	idle()
	for _, taker := range takers {
		taker.Show(instance.Demand{Want: 1}, true)
	}
	eventually(t, "cores are given", func() bool { return enclaveOf(t, a, "e").Txns > 0 })
	for _, taker := range takers {
		taker.Show(instance.Demand{}, true)
	}
	idle()
}

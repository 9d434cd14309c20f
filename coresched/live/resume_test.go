package live

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestSuccessor: an actuator is killed, alone or with its guard and its policy; the
// next one has the same enclave with the same threads and the same policy, the same
// process of it if that lives.
func TestSuccessor(t *testing.T) {
	for _, all := range []bool{false, true} {
		t.Run(map[bool]string{false: "alone", true: "with its children"}[all], func(t *testing.T) {
			needHost(t)
			state := filepath.Join(t.TempDir(), "sched.json")
			t.Setenv(stateEnv, state)
			tids := startWorkers(t)
			before := originals(t, tids)
			cmd, _ := startActuator(t, oneCore(t), tids)
			require.True(t, Left(state))
			r, err := loadRecord(state)
			require.NoError(t, err)
			require.Len(t, r.Threads, len(tids))
			require.NotNil(t, r.Enclaves[0].Policy)
			if all {
				for _, pid := range childrenOf(t, cmd.Process.Pid) {
					require.NoError(t, unix.Kill(pid, unix.SIGKILL))
				}
			}
			require.NoError(t, cmd.Process.Kill())
			_ = cmd.Wait()

			a, err := New(options())
			require.NoError(t, err)
			defer a.Close()
			require.NoError(t, a.Resume())
			s := enclaveOf(t, a, "e")
			t.Logf("without a policy for %v µs", s.TakeoverUS)
			require.Equal(t, "fifo-central", s.Policy)
			require.Equal(t, !all, s.PID == r.Enclaves[0].Policy.Handle.PID)
			require.Equal(t, oneCore(t).String(), s.CPUs)
			require.Len(t, a.Threads(), len(tids))
			require.Positive(t, s.TakeoverUS)
			eventually(t, "hand-offs", func() bool { return enclaveOf(t, a, "e").Handoffs > 20 })
			progress(t, tids)
			require.NoError(t, a.Close())
			asBefore(t, tids, before)
			require.False(t, Left(state), "what ends in order leaves nothing")
		})
	}
}

// What is in the record and has ended, or is none of this machine, is left out.
func TestResumeWithoutThreads(t *testing.T) {
	needHost(t)
	o := options()
	o.State = filepath.Join(t.TempDir(), "sched.json")
	require.False(t, Left(o.State))
	r := record{
		Schema: recordSchema, Boot: BootID(), At: clock(), Guard: identity{os.Getpid(), 1},
		Enclaves: []enclaveRecord{
			{Name: "e", CPUs: oneCore(t).String(), Timeout: time.Hour, Policy: &policyRecord{Program: "sol", Started: 1}},
			{Name: "broken", CPUs: "x"}, {Name: "twice", CPUs: oneCore(t).String()},
		},
		Threads: []memberRecord{{identity{os.Getpid(), 1}, originalRecord{CPUs: "0"}, "e"}, {identity{1 << 30, 1}, originalRecord{CPUs: "x"}, "e"}},
	}
	require.NoError(t, r.write(o.State, byActuator))
	a, err := New(o)
	require.NoError(t, err)
	defer a.Close()
	require.NoError(t, a.Resume())
	require.Len(t, a.Enclaves(), 1)
	s := enclaveOf(t, a, "e")
	require.Equal(t, "sol", s.Policy)
	require.EqualValues(t, time.Hour.Microseconds(), s.RunnableTimeoutUS)
	require.Empty(t, a.Threads())
	again, err := loadRecord(o.State)
	require.NoError(t, err)
	require.Len(t, again.Enclaves, 1, "the next successor finds it, too")
	require.NoError(t, os.WriteFile(o.State, []byte("{}"), 0o600))
	require.ErrorContains(t, a.Resume(), "not of this version")
}

// The numbers of a record of before the machine was started are others' now. It is
// removed, and nothing is touched.
func TestResumeAfterReboot(t *testing.T) {
	needHost(t)
	o := options()
	o.State = filepath.Join(t.TempDir(), "sched.json")
	tids := startWorkers(t)
	before := originals(t, tids)
	r := record{
		Schema: recordSchema, Boot: "00000000-0000-0000-0000-000000000000", At: clock(),
		Enclaves: []enclaveRecord{{Name: "e", CPUs: oneCore(t).String()}},
	}
	for _, tid := range tids {
		r.Threads = append(r.Threads, memberRecord{identityOf(tid), originalRecord{Nice: 7, CPUs: oneCore(t).String()}, "e"})
	}
	require.NoError(t, r.write(o.State, byActuator))
	a, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	require.NoError(t, a.Resume())
	require.Empty(t, a.Enclaves())
	require.Empty(t, a.Threads())
	require.Equal(t, before, originals(t, tids))
	require.False(t, Left(o.State))
	require.NoError(t, a.Create("e", oneCore(t), 0))
	_, err = loadRecord(o.State)
	require.NoError(t, err)
}

// A guard that takes a standing actuator for dead notes down what it has restored.
// The actuator that goes on has its own record again.
func TestRecordOfTheStanding(t *testing.T) {
	needHost(t)
	state := filepath.Join(t.TempDir(), "sched.json")
	t.Setenv(stateEnv, state)
	tids := startWorkers(t)
	before := originals(t, tids)
	cmd, _ := startActuator(t, oneCore(t), tids)
	record := func() record {
		r, err := loadRecord(state)
		require.NoError(t, err)
		return r
	}
	first := record()
	require.False(t, first.Released)
	require.NoError(t, cmd.Process.Signal(unix.SIGSTOP))
	eventually(t, "the guard has noted it down", func() bool { return record().Released })
	require.Len(t, record().Threads, len(tids))
	require.GreaterOrEqual(t, record().At, first.At)
	asBefore(t, tids, before)
	require.NoError(t, cmd.Process.Signal(unix.SIGCONT))
	eventually(t, "it goes on, with another guard", func() bool { r := record(); return !r.Released && r.Guard != first.Guard })
}

// Threads that others make, and leave, are noted down without an order.
func TestRecordFollows(t *testing.T) {
	needHost(t)
	o := options()
	o.State = filepath.Join(t.TempDir(), "sched.json")
	a, err := New(o)
	require.NoError(t, err)
	defer a.Close()
	require.NoError(t, a.Create("e", oneCore(t), 0))
	cmd, in, out := converse(t, nil, "/bin/sh", "-c", "read go; sleep 600 & echo $!; wait")
	require.NoError(t, a.Push("e", []int{cmd.Process.Pid}))
	noted := func(n int) func() bool {
		return func() bool {
			r, err := loadRecord(o.State)
			return err == nil && len(r.Threads) == n
		}
	}
	require.True(t, noted(1)())
	_, err = io.WriteString(in, "go\n")
	require.NoError(t, err)
	require.True(t, out.Scan())
	sleeper, err := strconv.Atoi(out.Text())
	require.NoError(t, err)
	eventually(t, "its child is noted", noted(2))
	require.NoError(t, unix.Kill(sleeper, unix.SIGKILL))
	eventually(t, "its end is noted", func() bool { return noted(1)() || noted(0)() })
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"schema":1,"boot":"` + BootID() + `","enclaves":[{"name":"e","cpus":"0"}],"threads":[{"id":1,"started":2,"cpus":"0-3","enclave":"e"}]}`))
	path := filepath.Join(f.TempDir(), "record")
	f.Fuzz(func(t *testing.T, b []byte) {
		require.NoError(t, os.WriteFile(path, b, 0o600))
		r, err := loadRecord(path)
		if err != nil {
			return
		}
		for _, m := range r.Threads {
			if o, err := m.original(); err == nil {
				again := o.record()
				same, err := again.original()
				require.NoError(t, err)
				require.Equal(t, o, same)
			}
		}
	})
}

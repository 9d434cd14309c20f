package live

import (
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func child(t *testing.T, argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// What counts against a process that shows no sign of life: sleep, being
// stopped, CPU time; not that it wants a core.
func TestSuspect(t *testing.T) {
	now := time.Now()
	looks := func(s *suspect, n int) {
		for range n {
			now = now.Add(beatEvery)
			s.look(now)
		}
	}
	sleeper := child(t, "/bin/sleep", "300")
	eventually(t, "it sleeps", func() bool { wants, _ := threadsOf(sleeper.Process.Pid); return !wants })
	s := suspect{pid: sleeper.Process.Pid}
	looks(&s, 1)
	require.Zero(t, s.asleep, "the first look only begins")
	looks(&s, 4)
	require.Equal(t, 4*beatEvery, s.asleep)
	now = now.Add(time.Hour)
	looks(&s, 1)
	require.Equal(t, 6*beatEvery, s.asleep, "who looks so late had no core itself")
	require.LessOrEqual(t, s.busy, standstill)
	s.clear()
	require.Equal(t, suspect{pid: sleeper.Process.Pid}, s)

	burner := child(t, "/bin/sh", "-c", "while :; do :; done")
	eventually(t, "it works", func() bool { wants, used := threadsOf(burner.Process.Pid); return wants && used > 0 })
	s = suspect{pid: burner.Process.Pid}
	looks(&s, 1)
	eventually(t, "it uses CPU time", func() bool { looks(&s, 1); return s.busy > standstill })
	require.Zero(t, s.asleep)

	require.NoError(t, burner.Process.Signal(unix.SIGSTOP))
	eventually(t, "it is stopped", func() bool { wants, _ := threadsOf(burner.Process.Pid); return !wants })
	s.clear()
	looks(&s, 7)
	require.Equal(t, 6*beatEvery, s.asleep)
	require.Zero(t, s.busy)
	require.NotEmpty(t, standsStill(&s, now, time.Second))
}

// A guard's verdict.
func TestStandsStill(t *testing.T) {
	self := unix.Getpid()
	now := time.Now()
	require.Empty(t, standsStill(&suspect{pid: self}, now, late))
	require.NotEmpty(t, standsStill(&suspect{pid: self, asleep: standstill + 1}, now, late))
	require.NotEmpty(t, standsStill(&suspect{pid: self, busy: busyStandstill + 1}, now, late))
	require.Empty(t, standsStill(&suspect{pid: self, busy: standstill + 1}, now, late), "it does other things beside")
	require.NotEmpty(t, standsStill(&suspect{pid: self}, now, silence+1))
}

func TestRunTime(t *testing.T) {
	require.Equal(t, time.Duration(123), runTime([]byte("123 4 5\n")))
	require.Zero(t, runTime([]byte("x")))
	require.Zero(t, runTime(nil))
}

package plugin

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/coresched/policies"
)

// serveEnv makes the test's program a policy's.
const serveEnv = "JUNCTION_TEST_POLICY"

// spinEnv is for how long it looks for work before it sleeps.
const spinEnv = "JUNCTION_TEST_SPIN"

func serveForTest() {
	p, err := policies.New(os.Getenv(serveEnv), nil)
	if err != nil {
		panic(err)
	}
	spin, _ := time.ParseDuration(os.Getenv(spinEnv))
	Serve(p, Options{Spin: spin})
}

func startPolicy(t *testing.T, name string, page *Page) *Process {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+name)
	p, err := Start(cmd, page, os.Stderr)
	require.NoError(t, err)
	require.Equal(t, name, p.Traits.Name)
	return p
}

func dupFD(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

func writable(fd int) error {
	b, err := unix.Mmap(fd, 0, int(pageSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err == nil {
		_ = unix.Munmap(b)
	}
	return err
}

func (p *plant) attach(t *testing.T, process *Process) *Driver {
	d, err := process.Attach(p.now, p.e)
	require.NoError(t, err)
	return d
}

func newProcessPlant(t *testing.T) (*plant, *Page) {
	page, err := NewPage()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, page.Close()) })
	return newPlant(t, 4, 400, 60, page, 0), page
}

func TestProcess(t *testing.T) {
	for _, name := range []string{"sol", "fifo-percpu", "ias"} {
		p, page := newProcessPlant(t)
		process := startPolicy(t, name, page)
		d := p.attach(t, process)
		require.NoError(t, p.serve(t, d, nil))
		require.Equal(t, 400, p.done)
		require.NoError(t, d.Close(p.now))
		process.Kill()
		require.True(t, process.Exited())
	}
}

// A policy that is killed leaves its tasks to the host's scheduler, all of
// them; its successor finds all and goes on.
func TestKilledPolicy(t *testing.T) {
	p, page := newProcessPlant(t)
	process := startPolicy(t, "shinjuku", page)
	d := p.attach(t, process)
	require.NoError(t, p.serve(t, d, func() bool { return p.done > 50 }))
	require.NoError(t, unix.Kill(process.PID(), unix.SIGKILL))
	for err := error(nil); err == nil; err = d.Wait() {
		if err = d.Step(p.now); err != nil {
			break
		}
	}
	p.fallBack(t, d)
	process.Kill()
	p.succeed(t, page, "fifo-central")
}

// A policy that stands still is found out by the watchdog.
func TestStoppedPolicy(t *testing.T) {
	p, page := newProcessPlant(t)
	process := startPolicy(t, "biff", page)
	d := p.attach(t, process)
	require.NoError(t, p.serve(t, d, func() bool { return p.done > 50 }))
	require.NoError(t, unix.Kill(process.PID(), unix.SIGSTOP))
	for late := false; !late; _, late = p.e.Stalled(p.now) {
		p.advance(t)
		require.NoError(t, d.Step(p.now))
	}
	p.fallBack(t, d)
	require.NoError(t, unix.Kill(process.PID(), unix.SIGCONT))
	process.Kill()
	p.succeed(t, page, "sol")
}

func (p *plant) fallBack(t *testing.T, d *Driver) {
	p.m.Actions()
	released := 0
	require.NoError(t, d.Close(p.now))
	for _, a := range p.m.Actions() {
		if a.Kind == cs.Release {
			released++
		}
	}
	require.Equal(t, len(p.left), released)
	require.False(t, p.anyRunning())
}

func (p *plant) succeed(t *testing.T, page *Page, name string) {
	process := startPolicy(t, name, page)
	defer process.Kill()
	d := p.attach(t, process)
	require.NoError(t, p.serve(t, d, nil))
	require.Equal(t, 400, p.done)
	require.NoError(t, d.Close(p.now))
}

// Live replacement: the successor is started first, so that tasks are without
// a policy only as long as it takes to hand the enclave over.
func TestReplacement(t *testing.T) {
	p, page := newProcessPlant(t)
	process := startPolicy(t, "fifo-central", page)
	d := p.attach(t, process)
	for i, name := range []string{"shinjuku", "cfs", "fifo-percpu", "edf"} {
		require.NoError(t, p.serve(t, d, func() bool { return p.done > 60*(i+1) }))
		next := startPolicy(t, name, page)
		from := time.Now()
		require.NoError(t, d.Close(p.now))
		d = p.attach(t, next)
		for !p.anyRunning() {
			require.NoError(t, d.Step(p.now))
			if !p.anyRunning() {
				require.NoError(t, d.Wait())
			}
		}
		t.Logf("%s to %s: blackout %v", process.Traits.Name, name, time.Since(from))
		process.Kill()
		process = next
	}
	require.NoError(t, p.serve(t, d, nil))
	require.Equal(t, 400, p.done)
	require.NoError(t, d.Close(p.now))
	process.Kill()
}

// A decision of a policy in another process: from a thread's giving way, through
// both rings, to its having the core again.
func BenchmarkProcess(b *testing.B) {
	page, err := NewPage()
	require.NoError(b, err)
	defer page.Close()
	m, err := cs.NewMachine(1)
	require.NoError(b, err)
	e, err := m.NewEnclave(cs.FirstCPUs(1), cs.EnclaveOptions{Board: page})
	require.NoError(b, err)
	task, err := e.Enter(0, true, cs.Hints{})
	require.NoError(b, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"=sol")
	process, err := Start(cmd, page, os.Stderr)
	require.NoError(b, err)
	defer process.Kill()
	d, err := process.Attach(0, e)
	require.NoError(b, err)
	await := func() {
		for {
			require.NoError(b, d.Step(0))
			if m.Running(0) == task {
				return
			}
			require.NoError(b, d.Wait())
		}
	}
	await()
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, e.Yield(0, task))
		await()
		m.Actions()
	}
	require.NoError(b, d.Close(0))
}

// A message to a policy in another process, that sleeps or looks for it all the
// time: from its being written until it has been read.
func BenchmarkDelivery(b *testing.B) {
	for _, spin := range []string{"0", "1h"} {
		b.Run(map[string]string{"0": "sleeping", "1h": "spinning"}[spin], func(b *testing.B) {
			page, err := NewPage()
			require.NoError(b, err)
			defer page.Close()
			m, err := cs.NewMachine(1)
			require.NoError(b, err)
			e, err := m.NewEnclave(cs.FirstCPUs(1), cs.EnclaveOptions{})
			require.NoError(b, err)
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), serveEnv+"=sol", spinEnv+"="+spin)
			process, err := Start(cmd, page, os.Stderr)
			require.NoError(b, err)
			defer process.Kill()
			d, err := process.Attach(0, e)
			require.NoError(b, err)
			require.NoError(b, d.Step(0))
			var took []time.Duration
			for b.Loop() {
				from := time.Now()
				require.NoError(b, d.Ping())
				for all := false; !all; {
					_, all, err = d.Progress()
					require.NoError(b, err)
				}
				took = append(took, time.Since(from))
			}
			slices.Sort(took)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(took[len(took)/10]), "p10-ns")
			b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
			b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
			require.NoError(b, d.Close(0))
		})
	}
}

func TestStartErrors(t *testing.T) {
	page, err := NewPage()
	require.NoError(t, err)
	defer page.Close()
	_, err = Start(exec.Command("/nonexistent/policy"), page, nil)
	require.Error(t, err)
	_, err = Start(exec.Command("/bin/true"), page, nil)
	require.Error(t, err)
}

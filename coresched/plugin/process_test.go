package plugin

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/coresched/policies"
)

// serveEnv makes the test's program a policy's.
const serveEnv = "JUNCTION_TEST_POLICY"

func serveForTest() {
	if os.Getenv(serveEnv) == "silent" {
		beSilent()
	}
	if how, ok := strings.CutPrefix(os.Getenv(serveEnv), hostilePrefix); ok {
		serveHostile(how)
		return
	}
	p, err := policies.New(os.Getenv(serveEnv), nil)
	if err != nil {
		panic(err)
	}
	Serve(p, Options{})
}

// beSilent is a program that says where it serves a policy, but nobody answers there.
func beSilent() {
	l, err := net.Listen("unix", "") // in the abstract namespace
	if err != nil {
		panic(err)
	}
	fmt.Printf("1|1|unix|%s|netrpc\n", l.Addr())
	time.Sleep(time.Hour)
}

func startPolicy(t *testing.T, name string, page *Page) *Process {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+name)
	p, err := Start(cmd, page, os.Stderr, time.Minute)
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
	socket := process.Handle().Address
	require.FileExists(t, socket)
	process.Kill()
	require.NoFileExists(t, socket, "nothing is left of it")
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

func TestStartErrors(t *testing.T) {
	page, err := NewPage()
	require.NoError(t, err)
	defer page.Close()
	_, err = Start(exec.Command("/nonexistent/policy"), page, nil, 0)
	require.Error(t, err)
	_, err = Start(exec.Command("/bin/true"), page, nil, 0)
	require.ErrorIs(t, err, ErrNoPolicy)
	_, err = Start(exec.Command("/bin/sh", "-c", "echo I serve files; cat /dev/zero"), page, nil, 0)
	require.ErrorIs(t, err, ErrNoPolicy)
	require.ErrorContains(t, err, "I serve files")
}

// A program that never says what a policy's says is given up, with all that it has
// started and that would hold its output.
func TestStartTimeout(t *testing.T) {
	page, err := NewPage()
	require.NoError(t, err)
	defer page.Close()
	from := time.Now()
	for name, cmd := range map[string]*exec.Cmd{
		"silent":                exec.Command("/bin/sh", "-c", "sleep 1000; true"),
		"a child has the pipes": exec.Command("/bin/sh", "-c", "sleep 1000 & sleep 1000; true"),
		"silent from there on":  exec.Command("/usr/bin/env", serveEnv+"=silent", os.Args[0]),
	} {
		_, err = Start(cmd, page, nil, time.Second)
		require.ErrorIs(t, err, ErrNoPolicy, name)
		require.ErrorContains(t, err, "not ready after 1s", name)
	}
	require.Less(t, time.Since(from), 900*time.Second, "the programs were waited for")
}

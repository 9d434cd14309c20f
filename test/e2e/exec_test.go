package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/internal/lab"
)

// control returns a junction_ctl command.
func (r *rig) control(args ...string) *lab.Cmd {
	return r.Server.Command(context.Background(), filepath.Join(commands, "junction_ctl"), append([]string{"--socket", r.socket}, args...)...)
}

// exec starts a program in an instance.
func (r *rig) exec(name string, program ...string) *instance {
	r.t.Helper()
	c := r.control(append([]string{"exec", name, "--"}, program...)...)
	return launch(r.t, c, c.Cmd)
}

// touch sends frames through the network server, whose accounts are checked at last.
func (r *rig) touch() {
	r.t.Helper()
	_, err := r.dial(netip.AddrPortFrom(addr4, 81))
	require.ErrorIs(r.t, err, syscall.ECONNREFUSED)
}

// TestExec: a further program in a running instance has the instance's files,
// network and user, the caller's standard streams, and its exit code.
func TestExec(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		web := r.startNamed("web", guest, "http", ":8080")
		web.await("ready")

		out := r.exec("web", "sh", "-c", "echo out; echo err >&2; exit 7")
		require.Equal(t, 7, out.exit())
		require.Equal(t, "out\n", out.stdout.String())
		require.Equal(t, "err\n", out.stderr.String())

		signalled := r.exec("web", "sh", "-c", "kill -USR1 $$")
		require.Equal(t, 128+int(syscall.SIGUSR1), signalled.exit())

		links := r.exec("web", "ip", "-o", "link") // leaves a netlink socket open
		require.Zero(t, links.exit())
		require.Contains(t, links.stdout.String(), "eth0:")

		// What one leaves in memory the next one finds; the host does not.
		marker := filepath.Join("/tmp", fmt.Sprintf("exec-test-%d", os.Getpid()))
		require.Zero(t, r.exec("web", "sh", "-c", "echo inside > "+marker).exit())
		found := r.exec("web", "cat", marker)
		require.Zero(t, found.exit())
		require.Equal(t, "inside\n", found.stdout.String())
		require.NoFileExists(t, marker)

		in := r.control("exec", "--env", "A=b c", "--cwd", "/usr", "web", "sh", "-c", `echo "$A"; pwd; cat`)
		in.Stdin = strings.NewReader("through a pipe")
		piped := launch(t, in, in.Cmd)
		require.Zero(t, piped.exit())
		require.Equal(t, "b c\n/usr\nthrough a pipe", piped.stdout.String())

		checkHasher(t, r, netip.AddrPortFrom(addr4, 8080))
		checkExecErrors(t, r)
		checkExecFiles(t, r)
		web.terminate(143)
		web.checkStats()
	})
}

// checkExecErrors: each failure has its exit code and says what failed.
func checkExecErrors(t *testing.T, r *rig) {
	t.Helper()
	for _, c := range []struct {
		name, program, text string
		code                int
	}{
		{"web", "no-such-program", "not found", 127},
		{"web", "/etc/passwd", "permission denied", 126},
		{"web", "/etc", "is a directory", 126},
		{"nobody", "true", "junction_ctl ls", 1},
	} {
		i := r.exec(c.name, c.program)
		require.Equal(t, c.code, i.exit(), c.program)
		require.Contains(t, i.stderr.String(), c.text)
		require.Equal(t, 1, strings.Count(i.stderr.String(), "\n"), "one line: %s", i.stderr)
	}
	cwd := r.control("exec", "--cwd", "/no/such", "web", "true")
	i := launch(t, cwd, cwd.Cmd)
	require.Equal(t, 1, i.exit())
	require.Contains(t, i.stderr.String(), "/no/such")
}

// checkExecFiles: files as standard streams, two of them one file, are used
// from where they are, and left where the program stopped.
func checkExecFiles(t *testing.T, r *rig) {
	t.Helper()
	f, err := os.Create(filepath.Join(workDir(t), "out"))
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString("before\n")
	require.NoError(t, err)
	c := r.control("exec", "web", "sh", "-c", "echo one; echo two >&2; echo three")
	c.Stdout, c.Stderr = f, f
	require.Zero(t, launch(t, c, c.Cmd).exit())
	_, err = f.WriteString("after\n")
	require.NoError(t, err)
	text, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	require.Equal(t, "before\none\ntwo\nthree\nafter\n", string(text))

	// Some start programs with sockets as their standard streams.
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	c = r.control("exec", "web", "sh", "-c", "read line; echo got-$line")
	c.Stdin, c.Stdout = theirs, theirs
	i := launch(t, c, c.Cmd)
	require.NoError(t, theirs.Close())
	_, err = ours.WriteString("typed\n")
	require.NoError(t, err)
	require.Zero(t, i.exit())
	buf := make([]byte, 64)
	n, err := ours.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "got-typed\n", string(buf[:n]))
}

// TestExecSignals: signals to junction_ctl reach the program, and when
// junction_ctl is killed, the program is told that its terminal is gone. It
// survives monitor and network server, and ends with the instance.
func TestExecSignals(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		r.touch()
		main := r.startNamed("main", "sh", "-c", "trap 'echo hung-up' USR2; echo ready; while :; do sleep 1000 & wait; done")
		main.await("ready")
		sigs := r.exec("main", guest, "signals")
		sigs.await("ready")
		sigs.signal(syscall.SIGUSR1)
		sigs.await("SIGUSR1")
		sigs.signal(syscall.SIGTERM)
		require.Equal(t, 7, sigs.exit())

		// The first program, 1 in the instance, hears when the further one is hung up.
		hung := r.exec("main", "sh", "-c", "trap 'kill -USR2 1; exit' HUP; echo ready; while :; do sleep 1000 & wait; done")
		hung.await("ready")
		hung.kill()
		main.await("hung-up")

		stays := r.exec("main", "sh", "-c", "echo ready; exec cat")
		stays.await("ready")
		reader := r.exec("main", "sh", "-c", "echo ready; exec sleep 1000")
		reader.await("ready")
		r.monitor.kill()
		r.startMonitor()
		require.Zero(t, stays.exit(), "its standard input was at its end")
		again := r.exec("main", "echo", "again")
		require.Zero(t, again.exit())
		require.True(t, reader.running())

		main.signal(syscall.SIGKILL)
		require.Equal(t, 1, reader.exit())
		// The monitor may have died before it passed on that the program runs.
		require.Regexp(t, "ended before|the monitor is gone", reader.stderr.String())
	})
}

// TestSignalVerb: an operator's signals reach an instance's program.
func TestSignalVerb(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		r.touch()
		i := r.startNamed("sigs", guest, "signals")
		i.await("ready")
		var sent struct {
			Name   string `json:"name"`
			Signal string `json:"signal"`
		}
		r.ctl(&sent, "signal", "sigs", "usr1")
		require.Equal(t, "sigs", sent.Name)
		require.Equal(t, "SIGUSR1", sent.Signal)
		i.await("SIGUSR1")
		r.ctl(&sent, "signal", "sigs", "9")
		require.Equal(t, 128+9, i.exit())
		c := r.control("signal", "sigs", "TERM")
		gone := launch(t, c, c.Cmd)
		require.Equal(t, 1, gone.exit())
		require.Contains(t, gone.stderr.String(), "no instance")
	})
}

// TestExecTerminal uses bash in a running instance as at a terminal.
func TestExecTerminal(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		r.touch()
		main := r.startNamed("main", "sh", "-c", "echo ready; exec sleep 1000")
		main.await("ready")
		c := r.control("exec", "-e", "PS1=prompt> ", "-e", "TERM=dumb", "-e", "HISTFILE=", "main", "bash", "--norc", "--noprofile", "-i")
		x := atTerminal(t, c, c.Cmd)
		x.expect("prompt> ")
		require.NotContains(t, x.screen.String(), "no job control")
		x.send("tty -s && echo is-a-$((6*7))-tty; stty size\r")
		x.expect("is-a-42-tty")
		x.expect("24 80")
		x.expect("prompt> ")
		const wait = "sh -c 'echo in-the-$((0))-foreground; read line'\r"
		x.send(wait)
		x.expect("in-the-0-foreground")
		x.send("\x03")
		x.expect("prompt> ")
		x.send("echo status $?\r")
		x.expect("status 130")
		x.expect("prompt> ")
		// Not while readline is at work, which reads the size and sets it again.
		x.send("echo waiting-$((0)); until [ \"$(stty size)\" = '50 132' ]; do :; done; echo resized-$((0))\r")
		x.expect("waiting-0")
		x.resize(t, 50, 132)
		x.expect("resized-0")
		x.expect("prompt> ")
		x.send("exit 5\r")
		require.Equal(t, 5, x.exit())
		require.True(t, main.running())
		main.terminate(143)
	})
}

// TestExecSameTerminal: the instance was started in the background of the
// terminal from which a program is started in it.
func TestExecSameTerminal(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		r.touch()
		c := r.Server.Command(context.Background(), "bash", "--norc", "--noprofile", "-i")
		c.Env = append(os.Environ(), "PS1=host> ", "TERM=dumb", "HISTFILE=")
		x := atTerminal(t, c, c.Cmd)
		x.expect("host> ")
		main := r.command([]string{"--name", "main", "--env", "PS1=inside> "}, "sh", "-c", `echo rea""dy; exec sleep 1000`) // not as it is typed
		x.send("'" + strings.Join(main.Args, "' '") + "' &\r")
		x.expect("ready")
		ctl := r.control("exec", "main", "bash", "--norc", "--noprofile", "-i")
		x.send(strings.Join(ctl.Args, " ") + "\r")
		x.expect("inside> ")
		x.send("stty size; read line; echo got-$line\r")
		x.expect("24 80")
		x.send("typed\r")
		x.expect("got-typed")
		x.expect("inside> ")
		x.send("sh -c 'echo in-the-$((0))-foreground; read line'\r")
		x.expect("in-the-0-foreground")
		x.send("\x03")
		x.expect("inside> ")
		x.send("yes | head -n 3000; exit 6\r")
		x.expect("host> ")
		require.Equal(t, 3000, strings.Count(x.screen.String(), "\ny\r"), "nothing shown is lost")
		x.send("echo status-$?\r")
		x.expect("status-6")
		x.expect("host> ")
		x.send("kill %1; wait; exit 3\r")
		require.Equal(t, 3, x.exit())
	})
}

// TestExecUser: a further program is the first one's user, and strangers may
// neither start one nor send signals.
func TestExecUser(t *testing.T) {
	eachServerRig(t, func(t *testing.T, r *rig) {
		r.touch()
		const nobody = 65534
		main := r.start([]string{"--name", "main", "--uid", "65534", "--gid", "65534", "--cwd", "/"}, "sh", "-c", "echo ready; exec sleep 1000")
		main.await("ready")
		id := r.exec("main", "sh", "-c", "id -u; id -g")
		require.Zero(t, id.exit())
		require.Equal(t, "65534\n65534\n", id.stdout.String())
		for _, order := range [][]string{{"exec", "main", "true"}, {"signal", "main", "KILL"}, {"trace", "1"}} {
			c := r.control(order...)
			c.SysProcAttr.Credential = &syscall.Credential{Uid: nobody - 1, Gid: nobody - 1}
			c.Dir = "/" // this one may be closed to others
			i := launch(t, c, c.Cmd)
			require.Equal(t, 1, i.exit(), order)
			require.Regexp(t, "may only look|permission denied", i.stderr.String())
		}
		main.terminate(143)
	})
}

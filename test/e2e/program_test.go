package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestExitStatus expects the program's exit code, or 128 and the signal that killed it.
func TestExitStatus(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		for script, want := range map[string]int{
			"exit 0":                       0,
			"exit 7":                       7,
			"exit 255":                     255,
			"kill -TERM $$; sleep 60":      128 + 15,
			"kill -KILL $$; sleep 60":      128 + 9,
			"kill -SEGV $$; sleep 60":      128 + 11,
			"(exit 3); exit $?":            3,
			"sh -c 'kill -9 $$'; exit $?":  128 + 9,
			"sleep 60 & kill $!; wait $!":  128 + 15,
			"sleep 1000 & sleep 1000& :":   0, // what is left ends with the first program
			"exec /no/such/program":        127,
			"exec /etc/passwd":             126,
			"/no/such/program; exit 4":     4,
			"trap 'exit 9' TERM; kill $$;": 9,
		} {
			t.Run(script, func(t *testing.T) {
				_, _, code := run(t, isolated(engine), "sh", "-c", script)
				require.Equal(t, want, code)
			})
		}
		require.Contains(t, mustRun(t, isolated(engine), "ip", "-o", "link"), "lo:")
	})
}

// TestSeveralPrograms runs several programs in one instance.
func TestSeveralPrograms(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		script := `sh -c 'for i in 1 2 3; do echo background $i; done' & seq 1 1000 | sort -rn | head -n 2; wait`
		got := strings.Split(strings.TrimSpace(mustRun(t, isolated(engine), "sh", "-c", script)), "\n")
		require.ElementsMatch(t, []string{"background 1", "background 2", "background 3", "1000", "999"}, got)

		script = `import subprocess, threading, multiprocessing
def f(q, n): q.put(n * n)
if __name__ == "__main__":
    q = multiprocessing.Queue()
    ps = [multiprocessing.Process(target=f, args=(q, n)) for n in range(4)]
    [p.start() for p in ps]
    print(sorted(q.get() for p in ps))
    [p.join() for p in ps]
    ts = [threading.Thread(target=lambda n=n: out.append(n)) for n in range(4)]
    out = []
    [x.start() for x in ts]; [x.join() for x in ts]
    print(sorted(out))
    print(subprocess.check_output(["echo", "child"]).decode(), end="")
`
		file := writeFile(t, workDir(t), "several.py", []byte(script))
		require.Equal(t, "[0, 1, 4, 9]\n[0, 1, 2, 3]\nchild\n", mustRun(t, isolated(engine), need(t, "python3"), file))
	})
}

// TestLoopback connects two programs of one instance without network.
func TestLoopback(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		script := guest + ` tcpecho 127.0.0.1:7 | { read ready; ` + guest + ` dial 100 127.0.0.1:7; kill -9 0; }`
		i := start(t, isolated(engine), "sh", "-c", script)
		i.await("100 connections")
		i.exit()
	})
}

// TestEnvironment checks --env, --cwd, --name, --uid, --gid and --kthreads.
func TestEnvironment(t *testing.T) {
	dir := workDir(t)
	eachEngine(t, func(t *testing.T, engine string) {
		t.Setenv("JUNCTION_TEST_INHERITED", "from the caller")
		t.Setenv("JUNCTION_TEST_OVERRIDDEN", "wrong")
		got := mustRun(t, isolated(engine, "--env", "A=b=c", "--env", "JUNCTION_TEST_OVERRIDDEN=right", "--env", "EMPTY=",
			"--cwd", dir, "--name", "box", "--uid", "1234", "--gid", "4321", "--kthreads", "1"),
			"sh", "-c", `echo "$A|$JUNCTION_TEST_INHERITED|$JUNCTION_TEST_OVERRIDDEN|${EMPTY-unset}"; pwd; hostname; id -u; id -g; nproc`)
		require.Equal(t, "b=c|from the caller|right|\n"+dir+"\nbox\n1234\n4321\n1\n", got)
	})
}

// TestWorkingDirectory expects the caller's working directory by default.
func TestWorkingDirectory(t *testing.T) {
	dir := workDir(t)
	eachEngine(t, func(t *testing.T, engine string) {
		c := command(isolated(engine), "pwd")
		c.Dir = dir
		i := launch(t, c, c)
		require.Zero(t, i.exit())
		require.Equal(t, dir+"\n", i.stdout.String())
	})
}

// TestKernelFilesystems looks at what programs expect of a Linux system.
func TestKernelFilesystems(t *testing.T) {
	checks := map[string]string{ // script: output
		"test -r /proc/self/status && cat /proc/self/comm":                             "cat\n",
		"head -c 16 /dev/zero | wc -c":                                                 "16\n",
		"head -c 1000 /dev/urandom | wc -c":                                            "1000\n",
		"echo lost > /dev/null; cat /dev/null":                                         "",
		"test -e /dev/ptmx && test -d /dev/pts && test -e /dev/tty && echo ok":         "ok\n",
		"cd /dev/shm && echo shared > f && cat f":                                      "shared\n",
		"cd /tmp && f=$(mktemp) && echo temporary > $f && cat $f":                      "temporary\n",
		"ls /sys/devices/system/cpu | grep -c '^cpu0$'":                                "1\n",
		"echo $(cat /proc/sys/kernel/ostype)":                                          "Linux\n",
		"grep -c . /proc/mounts | grep -qv '^0' && echo ok":                            "ok\n",
		"ls -l /proc/self/fd/0 >/dev/null && echo ok":                                  "ok\n",
		"ls /proc | grep -c '^1$'":                                                     "1\n",
		"stat -c %a /tmp /dev/shm":                                                     "1777\n1777\n",
		"test -s /etc/passwd && echo ok":                                               "ok\n",
		"uname -s":                                                                     "Linux\n",
		"grep -q MemTotal /proc/meminfo && grep -q processor /proc/cpuinfo && echo ok": "ok\n",
		"ip -o link show lo | grep -c LOOPBACK,UP":                                     "1\n",
		"ln -s /etc/passwd /tmp/link$$ && readlink /tmp/link$$":                        "/etc/passwd\n",
		"mkfifo /tmp/fifo$$ && (echo through > /tmp/fifo$$ & cat /tmp/fifo$$)":         "through\n",
		"exec 3<>/tmp/lock$$; flock -n 3 && echo locked":                               "locked\n",
		"ulimit -n | awk '{ print ($1 >= 1024) ? \"enough\" : $1 }'":                   "enough\n",
		"date -u +%Y | awk '{ print ($1 > 2000) ? \"clock\" : $1 }'":                   "clock\n",
		"readlink /proc/self/exe":                                                      "/usr/bin/readlink\n",
		"python3 -c 'import mmap; m = mmap.mmap(-1, 4096); m[:2] = b\"ok\"; print(m[:2].decode())' 2>&1 | tail -n1": "ok\n",
	}
	eachEngine(t, func(t *testing.T, engine string) {
		for script, want := range checks {
			t.Run(script, func(t *testing.T) {
				require.Equal(t, want, mustRun(t, isolated(engine, "--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"), "sh", "-c", script))
			})
		}
	})
}

// TestUnprivileged runs an instance as a user without any privilege.
func TestUnprivileged(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		c := command(isolated(engine), "id", "-u")
		c.Dir = "/"
		asNobody(c)
		i := launch(t, c, c)
		require.Zero(t, i.exit())
		require.Equal(t, "65534\n", i.stdout.String())
	})
}

// TestCheck expects --check to print what the host offers.
func TestCheck(t *testing.T) {
	require.Regexp(t, `(?m)^engines.inproc.available +true$`, checkOutput(t, "--check"))
	require.Contains(t, checkOutput(t, "--check", "--json"), `"boundary":{"available":true}`)
	for _, engine := range []string{"inproc", "systrap"} {
		require.Contains(t, checkOutput(t, "--check", "--json", "--engine", engine), `"engine":"`+engine+`","engine_reason":"asked for"`)
	}
}

func checkOutput(t *testing.T, flags ...string) string {
	t.Helper()
	c := command(nil)
	c.Args = append([]string{junctionRun}, flags...)
	i := launch(t, c, c)
	require.Zero(t, i.exit())
	return i.stdout.String()
}

// TestHostProcessesAreHidden expects the instance's own processes only in /proc.
func TestHostProcessesAreHidden(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		got := strings.Fields(mustRun(t, isolated(engine), "sh", "-c", "cat /proc/[0-9]*/comm"))
		require.Equal(t, []string{"sh"}, got) // cat came after the list was made
	})
}

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// realProgram is unmodified software with real work, whose output native is
// what it must be inside an instance.
type realProgram struct {
	name string
	// needs are programs that it uses besides those of coreutils.
	needs []string
	// argv prepares what it needs in dir and returns the program. It runs in an
	// empty directory of its own.
	argv func(t *testing.T, dir string) []string
	// output is a regular expression that shows that it has done something.
	output string
	nobody bool // runs as a user without privileges
}

var realPrograms = []realProgram{
	{name: "C dynamic", argv: compiled("gcc", "-pthread"), output: "sum 1850691 .* ok\nchild 42 touched 114688\n"},
	{name: "C static", argv: compiled("gcc", "-pthread", "-static"), output: "child 42"},
	{name: "C at a fixed address", argv: compiled("gcc", "-pthread", "-no-pie"), output: "child 42"},
	{name: "musl dynamic", argv: compiled("musl-gcc", "-pthread"), output: "child 42"},
	{name: "musl static", argv: compiled("musl-gcc", "-pthread", "-static"), output: "child 42"},
	{name: "Go", argv: goCollect, output: `goroutines 181371\nmap \w{64}\nchildren 0 1 4 .* 361\n`},
	{name: "Python", argv: interpreted("python3", "several.py"), output: "(?s)threads .*processes .*children\n(.*\n){10}generations 4\n"},
	{name: "Node", argv: interpreted("node", "workers.js"), output: `^(\w{128}\n){4}true\n100000\n\nsignature true\n$`},
	{name: "Java G1", argv: java("-XX:+UseG1GC"), output: "child 1000 3\nfaults 50000 overflow\n"},
	{name: "Java ZGC", argv: java("-XX:+UseZGC"), output: "child 1000 3\nfaults 50000 overflow\n"},
	{name: "Perl", argv: interpreted("perl", "work.pl"), output: `(?s)matches \d+\n(child \w{64} \d\n){8}alarms\n42\n`},
	{name: "Rust (ripgrep)", needs: []string{"rg"}, argv: interpreted("bash", "ripgrep.sh"), output: `  -\n[1-9]\d+\n`},
	{name: "gcc", needs: []string{"gcc"}, argv: script("gcc.sh", "threads.c"), output: "(?s)child 42 .*child 42 "},
	{name: "git", needs: []string{"git"}, argv: script("git.sh"), output: `(?s)(\w{40}\n){15}.*packs: 1\ngarbage: 0\n\w{40}\n`},
	{name: "sqlite3", needs: []string{"sqlite3"}, argv: script("sqlite.sh"), output: `(?s)wal\n20000\|955548\nok\nok\n.*\n20000\nok\n`},
	{name: "PostgreSQL", argv: postgres, nobody: true, output: `(?s)^100000\|100\|\w{32}\n50000\|\w{32}\|\w{32}\|4096\nParallel Seq Scan\n100100\|100\|\w{32}\n.*server stopped\n$`},
	{name: "redis snapshot", needs: []string{"redis-server", "redis-cli", "redis-check-rdb"}, argv: script("redis.sh"),
		output: `(?s)rdb_last_bgsave_status:ok\n.*aof_last_bgrewrite_status:ok\nsound\n40000\n1000\n$`},
	{name: "nginx workers", needs: []string{"nginx", "curl", "pgrep"}, argv: script("nginx.sh"), output: `^(served alone\n){2}\w{32}  -\n(served alone\n){2}replaced\n$`},
	{name: "tmux", needs: []string{"tmux"}, argv: script("tmux.sh"), output: "^48\n49\n50\n%0\n24 39\n24 20\n59x24\n20x24\n$"},
	{name: "vim", needs: []string{"vim"}, argv: script("vim.sh"), output: "(?s)numbers.*filtered\n0-7\n0,1,4,9,16\n$"},
	{name: "zstd", needs: []string{"zstd", "cmp"}, argv: script("zstd.sh"), output: `^(\w{32}  -\n){2}same\n\w{32}  -\n$`},
	{name: "openssl", needs: []string{"openssl"}, argv: script("openssl.sh"), output: `(?s)(\w{32,128} \*data\n){5}.*Verified OK\nsha256\nAES-128-GCM for 1s\n$`},
}

// TestRealPrograms runs each program native and under each engine, and compares.
func TestRealPrograms(t *testing.T) {
	t.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
	for _, p := range realPrograms {
		t.Run(p.name, p.test)
	}
}

func (p *realProgram) test(t *testing.T) {
	for _, program := range p.needs {
		need(t, program)
	}
	argv := p.argv(t, workDir(t))
	native := p.start(t, natively(argv, p.nobody))
	require.Zero(t, native.exit(), "exit code without an instance")
	require.Regexp(t, p.output, native.stdout.String())
	eachEngine(t, func(t *testing.T, engine string) {
		flags := isolated(engine, "--stats=json")
		if p.nobody {
			flags = append(flags, "--uid", nobody, "--gid", nobody)
		}
		i := p.start(t, command(flags, argv...))
		require.Zero(t, i.exit(), "exit code")
		require.Equal(t, native.stdout.String(), i.stdout.String())
		require.Equal(t, engine, i.report().Engine)
	})
}

// start starts c in an empty directory. Native it leaves its files there, in
// an instance in the overlay.
func (p *realProgram) start(t *testing.T, c *exec.Cmd) *instance {
	c.Dir = workDir(t)
	if p.nobody {
		require.NoError(t, os.Chmod(c.Dir, 0o777))
	}
	return launch(t, c, c)
}

// nobody is the user and group of programs that refuse to be root.
const nobody = "65534"

// natively returns a command for a program on the host's kernel, as the first
// process of a namespace: whatever it has started ends with it.
func natively(argv []string, asNobody bool) *exec.Cmd {
	user := "0"
	if asNobody {
		user = nobody
	}
	const script = `mount -t proc proc /proc && u=$1 && shift && exec setpriv --reuid "$u" --regid "$u" --clear-groups -- "$@"`
	c := exec.Command("sh", append([]string{"-c", script, "-", user}, argv...)...)
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Unshareflags: syscall.CLONE_NEWNS, // without propagation of mounts
	}
	return c
}

// programFile copies a file of testdata/programs to dir.
func programFile(t *testing.T, dir, name string) string {
	t.Helper()
	return copyTestdata(t, dir, filepath.Join("programs", name))
}

// compiled builds threads.c.
func compiled(compiler string, flags ...string) func(*testing.T, string) []string {
	return func(t *testing.T, dir string) []string {
		binary := filepath.Join(dir, "threads")
		require.NoError(t, tool(need(t, compiler), slices.Concat(flags, []string{"-O2", "-Wall", "-o", binary, "testdata/programs/threads.c", "-lm"})...))
		return []string{binary}
	}
}

// interpreted runs a file in an interpreter.
func interpreted(interpreter, file string) func(*testing.T, string) []string {
	return func(t *testing.T, dir string) []string {
		return []string{need(t, interpreter), programFile(t, dir, file)}
	}
}

// script runs a file in bash, which gets the directory of the other files.
func script(file string, others ...string) func(*testing.T, string) []string {
	return func(t *testing.T, dir string) []string {
		argv := []string{need(t, "bash"), programFile(t, dir, file), filepath.Join(dir, "programs")}
		for _, o := range others {
			programFile(t, dir, o)
		}
		return argv
	}
}

func goCollect(*testing.T, string) []string { return []string{guest, "collect"} }

// java compiles Threads.java. The VM's log is off: under ZGC it says that the
// Sentry cannot punch holes into files.
func java(collector string) func(*testing.T, string) []string {
	return func(t *testing.T, dir string) []string {
		compileJava(t, dir, programFile(t, dir, "Threads.java"))
		return []string{need(t, "java"), "-Xmx256m", "-Xlog:disable", collector, "-cp", dir, "Threads"}
	}
}

// postgres finds the server's programs, which are not in the path on Debian.
func postgres(t *testing.T, dir string) []string {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	require.NoError(t, err)
	require.NotEmpty(t, found, "PostgreSQL is not installed: run make deps")
	return []string{need(t, "bash"), programFile(t, dir, "postgres.sh"), filepath.Dir(found[len(found)-1])}
}

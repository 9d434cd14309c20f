package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPipes sends data through a program's standard input and output.
func TestPipes(t *testing.T) {
	const size = 20 << 20
	eachEngine(t, func(t *testing.T, engine string) {
		c := command(isolated(engine), "sh", "-c", "cat; echo done >&2")
		c.Stdin = io.LimitReader(stream(5), size)
		h := sha256.New()
		c.Stdout = h
		i := launch(t, c, c)
		require.Zero(t, i.exit())
		require.Equal(t, hashOf(5, size), hex.EncodeToString(h.Sum(nil)))
		require.Equal(t, "done\n", i.stderr.String())
	})
}

// TestClosedPipe expects SIGPIPE's death of a program whose reader has gone.
func TestClosedPipe(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		c := command(isolated(engine), "yes")
		c.Stdout = w
		i := launch(t, c, c)
		w.Close()
		_, err = io.ReadFull(r, make([]byte, 1<<16))
		require.NoError(t, err)
		r.Close()
		require.Equal(t, 128+int(syscall.SIGPIPE), i.exit())
	})
}

// TestClosedStdio runs a program whose standard input is at its end or closed.
func TestClosedStdio(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		for redirect, want := range map[string]string{"</dev/null": "0\n", "<&-": "0\n"} {
			script := fmt.Sprintf(`"$@" %s`, redirect)
			c := command(nil)
			c.Path, c.Args = need(t, "sh"), append([]string{"sh", "-c", script, "-", junctionRun}, args(isolated(engine), []string{"sh", "-c", "cat 2>/dev/null | wc -c"})...)
			i := launch(t, c, c)
			require.Zero(t, i.exit(), redirect)
			require.Equal(t, want, i.stdout.String(), redirect)
		}
	})
}

// fileCases redirect output to a file, which begins with "first\n", in a host's
// shell. $@ is junction_run; its program writes "out\n" and "err\n".
var fileCases = map[string]struct{ script, want string }{
	"append":           {`echo first > f; "$@" >> f 2>/dev/null; echo last >> f`, "first\nout\nlast\n"},
	"both, one offset": {`{ echo first; "$@"; echo last; } > f 2>&1`, "first\nout\nerr\nlast\n"},
	"following writer": {`{ echo first; "$@" 2>/dev/null; echo last; } > f`, "first\nout\nlast\n"},
	"both, append":     {`echo first > f; { "$@"; echo last; } >> f 2>&1`, "first\nout\nerr\nlast\n"},
	"twice":            {`{ echo first; "$@" 2>/dev/null; "$@" 2>/dev/null; } > f`, "first\nout\nout\n"},
}

// TestFiles redirects output to files as shell users do.
func TestFiles(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		for name, c := range fileCases {
			t.Run(name, func(t *testing.T) {
				dir := workDir(t)
				hostShell(t, dir, c.script, args(isolated(engine), []string{"sh", "-c", "echo out; echo err >&2"}))
				requireContent(t, filepath.Join(dir, "f"), c.want)
			})
		}
	})
}

// TestFileInput expects that the host's next reader continues where the program stopped.
func TestFileInput(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		dir := workDir(t)
		writeFile(t, dir, "in", []byte("one\ntwo\nthree\n"))
		hostShell(t, dir, `{ read a; "$@"; read c; echo "$a $c" > rest; } < in > f`,
			args(isolated(engine), []string{"sh", "-c", `read b; echo "$b"`}))
		requireContent(t, filepath.Join(dir, "f"), "two\n")
		requireContent(t, filepath.Join(dir, "rest"), "one three\n")
	})
}

// hostShell runs a script on the host in which "$@" is junction_run.
func hostShell(t *testing.T, dir, script string, arguments []string) {
	t.Helper()
	c := command(nil)
	c.Path, c.Args, c.Dir = need(t, "sh"), append([]string{"sh", "-ec", script, "-", junctionRun}, arguments...), dir
	require.Zero(t, launch(t, c, c).exit())
}

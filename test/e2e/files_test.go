package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOverlay expects that changes stay in the instance.
func TestOverlay(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		dir := workDir(t)
		kept := writeFile(t, dir, "kept", []byte("the host's\n"))
		removed := writeFile(t, dir, "removed", []byte("still there\n"))
		script := `cd "$1" && echo changed >> kept && rm removed && echo new > new && mkdir sub && mv new sub && chmod 600 kept && cat kept sub/new && ls`
		got := mustRun(t, isolated(engine), "sh", "-c", script, "-", dir)
		require.Equal(t, "the host's\nchanged\nnew\nkept\nsub\n", got)
		requireContent(t, kept, "the host's\n")
		requireContent(t, removed, "still there\n")
		require.NoFileExists(t, filepath.Join(dir, "sub"))
		st, err := os.Stat(kept)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o644), st.Mode().Perm())
	})
}

// TestReadWrite expects that changes below --rw reach the host at once, and the host's the program.
func TestReadWrite(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		dir, other := workDir(t), workDir(t)
		old := writeFile(t, dir, "old", []byte("old\n"))
		script := `cd "$1" && read line < old && echo "$line, then new" > new && mkdir -p a/b && ln -s b a/link &&
			rm old && echo x > "$2/lost" && chmod 640 new && echo written && read go && cat from-host && echo seen && read go && cat from-host a/f`
		stdin, write, err := os.Pipe()
		require.NoError(t, err)
		defer write.Close()
		c := command(isolated(engine, "--rw", dir), "sh", "-c", script, "-", dir, other)
		c.Stdin = stdin
		i := launch(t, c, c)
		stdin.Close()

		i.await("written\n")
		requireContent(t, filepath.Join(dir, "new"), "old, then new\n")
		st, err := os.Stat(filepath.Join(dir, "new"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o640), st.Mode().Perm())
		target, err := os.Readlink(filepath.Join(dir, "a", "link"))
		require.NoError(t, err)
		require.Equal(t, "b", target)
		require.NoFileExists(t, old)
		require.NoFileExists(t, filepath.Join(other, "lost"))

		writeFile(t, dir, "from-host", []byte("first\n"))
		_, err = write.WriteString("go\n")
		require.NoError(t, err)
		i.await("seen\n")
		writeFile(t, dir, "from-host", []byte("second\n"))
		writeFile(t, dir, "a/f", []byte("third\n"))
		_, err = write.WriteString("go\n")
		require.NoError(t, err)
		require.Zero(t, i.exit())
		require.Equal(t, "written\nfirst\nseen\nsecond\nthird\n", i.stdout.String())
	})
}

// TestReadWriteOwner expects files that the program's user makes to belong to that user on the host.
func TestReadWriteOwner(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		dir := workDir(t)
		require.NoError(t, os.Chmod(dir, 0o777))
		mustRun(t, isolated(engine, "--rw", dir, "--cwd", "/", "--uid", "1234", "--gid", "4321"), "sh", "-c", `umask 027; echo x > "$1/f"`, "-", dir)
		st, err := os.Stat(filepath.Join(dir, "f"))
		require.NoError(t, err)
		owner := st.Sys().(*syscall.Stat_t)
		require.Equal(t, []uint32{1234, 4321}, []uint32{owner.Uid, owner.Gid})
		require.Equal(t, os.FileMode(0o640), st.Mode().Perm())
	})
}

// TestHostRefuses expects a program to be told when the host does not let the
// instance's process, which has no privileges, change a file.
func TestHostRefuses(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		dir := workDir(t)
		foreign := writeFile(t, dir, "foreign", nil)
		require.NoError(t, os.Chown(foreign, 1234, 4321))
		own := writeFile(t, dir, "own", nil)
		refused := []string{
			"chown 1 own", "chgrp 1 own", "chown 1:1 " + own, "chown 1 .", "chown -h 1 link", "chmod 600 foreign", "chmod 600 " + foreign,
			"python3 -c 'import os; os.fchown(os.open(\"own\", 0), 1, 1)' 2>/dev/null",
			"setpriv --reuid 1 --regid 1 --clear-groups touch own 2>/dev/null",
		}
		granted := []string{"chown 0 own", "chown 0:0 .", "chmod 600 own", "chown 1:1 /etc/hostname", "ln -s nothing link", "chown -h 0 link"}
		script := `cd "$1"; for c in "$@"; do eval "$c" 2>/dev/null || echo "$c"; done`
		got := mustRun(t, isolated(engine, "--rw", dir), append([]string{"sh", "-c", script, "-", dir}, append(granted, refused...)...)...)
		require.Equal(t, dir+"\n"+strings.Join(refused, "\n")+"\n", got, "the first is no command; the others fail")
		st, err := os.Stat(own)
		require.NoError(t, err)
		require.Equal(t, uint32(0), st.Sys().(*syscall.Stat_t).Uid)
	})
}

// TestRootfs runs a program of another root directory, which is not changed.
func TestRootfs(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		root := workDir(t)
		binary, err := os.ReadFile(guest)
		require.NoError(t, err)
		require.NoError(t, os.Chmod(writeFile(t, root, "bin/guest", binary), 0o755))
		writeFile(t, root, "hosts", nil)
		i := start(t, isolated(engine, "--rootfs", root), "/bin/guest", "signals")
		i.await("ready")
		i.terminate(7)

		_, stderr, code := run(t, isolated(engine, "--rootfs", root), "/bin/sh")
		require.Equal(t, 127, code)
		require.Contains(t, stderr, "/bin/sh")
		entries, err := os.ReadDir(root)
		require.NoError(t, err)
		require.Len(t, entries, 2, "mount points show on the host: %v", entries)
	})
}

func requireContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(got), path)
}

package boundary

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestTree enters a tree in a process of its own, which has kept all its
// privileges: what it cannot do then, no program can.
func TestTree(t *testing.T) {
	require.True(t, has(unix.CAP_SYS_ADMIN), "run this test as root")
	dir := t.TempDir()
	for _, d := range []string{"root/dir", "root/proc", "written/deep"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	device := filepath.Join(dir, "written", "null")
	require.NoError(t, unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	require.NoError(t, unix.Mount("proc", filepath.Join(dir, "root/proc"), "proc", 0, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(filepath.Join(dir, "root/proc"), 0)) })
	out, err := childOf(t, "tree", filepath.Join(dir, "root"), filepath.Join(dir, "written")).CombinedOutput()
	require.NoError(t, err, string(out))
	written, err := os.ReadFile(filepath.Join(dir, "written/deep/new"))
	require.NoError(t, err)
	require.Equal(t, "text", string(written))
	require.FileExists(t, filepath.Join(dir, "root/proc/version"), "the host's mounts stay")
}

func childTree(root, written string) error {
	tree, err := NewTree(root, []string{written})
	if err != nil {
		return err
	}
	if err := tree.Enter(); err != nil {
		return err
	}
	w := tree.Writable(written)
	return errors.Join(
		expectNames("/", "proc root rw"),
		expectNames("/proc", "self"),
		expectNames("/proc/self/../../..", "proc root rw"),
		expectNames(tree.Root(root), "dir proc"),
		expectNames(tree.Root(root)+"/proc", ""),
		os.WriteFile(w+"/deep/new", []byte("text"), 0o644),
		expectError(unix.EROFS, os.WriteFile(tree.Root(root)+"/new", nil, 0o644)),
		expectError(unix.EROFS, os.Mkdir("/new", 0o755)),
		expectError(unix.EROFS, os.WriteFile("/proc/self/comm", []byte("x"), 0o644)),
		expectError(unix.EACCES, os.WriteFile(w+"/null", nil, 0)),
		expectError(unix.ENOENT, unix.Access(root, unix.R_OK)),
		unix.Access("/proc/self/fd/1", unix.F_OK),
	)
}

func expectNames(dir, want string) error {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); err != nil || got != want {
		return fmt.Errorf("%s holds %q (%v), want %q", dir, got, err, want)
	}
	return nil
}

func expectError(want, got error) error {
	if !errors.Is(got, want) {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

// TestTreeOfNothing: what is not there cannot be confined, and leaves nothing open.
func TestTreeOfNothing(t *testing.T) {
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	before := open()
	for _, dirs := range [][2]string{{"/nonexistent", t.TempDir()}, {t.TempDir(), "/nonexistent"}} {
		_, err := NewTree(dirs[0], dirs[1:])
		require.ErrorIs(t, err, unix.ENOENT)
		require.ErrorContains(t, err, "/nonexistent")
	}
	require.Equal(t, before, open())
}

// TestNoTree: a nil Tree is the host's.
func TestNoTree(t *testing.T) {
	var none *Tree
	require.NoError(t, none.Enter())
	require.Equal(t, "/a", none.Root("/a"))
	require.Equal(t, "/b", none.Writable("/b"))
}

package boundary

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestPrivileges looks at every thread of a process that has dropped its privileges.
func TestPrivileges(t *testing.T) {
	require.True(t, has(unix.CAP_SETPCAP), "run this test as root")
	out, err := childOf(t, "privileges").CombinedOutput()
	require.NoError(t, err, string(out))
	threads := strings.Split(strings.TrimSpace(string(out)), "\n\n")
	require.Greater(t, len(threads), 3)
	for _, status := range threads {
		for _, line := range []string{
			`CapInh:\t0+`, `CapPrm:\t0+`, `CapEff:\t0+`, `CapBnd:\t0+`, `CapAmb:\t0+`, `NoNewPrivs:\t1`, `Seccomp:\t2`,
			`Uid:(\t1234){4}`, `Gid:(\t4321){4}`, `Groups:\t\s*`,
		} {
			require.Regexp(t, regexp.MustCompile(`(?m)^`+line+`$`), status)
		}
	}
}

// childPrivileges prints the status of all its threads, which are several.
func childPrivileges() error {
	for range 4 {
		started := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(started)
			select {}
		}()
		<-started
	}
	if err := DropPrivileges(1234, 4321); err != nil {
		return err
	}
	f, err := Compile(Needs{}, Kill)
	if err != nil {
		return err
	}
	if err := f.Install(); err != nil {
		return err
	}
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			return err
		}
		fmt.Println(string(status))
	}
	return nil
}

// TestInherited leaves a file open to a process that closes such files.
func TestInherited(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	c := childOf(t, "inherited")
	c.ExtraFiles = []*os.File{w}
	out, err := c.CombinedOutput()
	w.Close()
	require.NoError(t, err, string(out))
}

func childInherited() error {
	const left = 3 // the first of exec.Cmd.ExtraFiles
	if _, err := unix.FcntlInt(left, unix.F_GETFD, 0); err != nil {
		return fmt.Errorf("the test left no file open: %w", err)
	}
	own, err := os.Open("/dev/null")
	if err != nil {
		return err
	}
	if err := CloseInherited(); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(left, unix.F_GETFD, 0); err != unix.EBADF {
		return fmt.Errorf("the file is still open (%v)", err)
	}
	for _, fd := range []uintptr{0, 1, 2, own.Fd()} {
		if _, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil {
			return fmt.Errorf("descriptor %d is closed: %w", fd, err)
		}
	}
	return nil
}

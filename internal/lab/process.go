package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// processesIn lists the processes, other than this one, that are in the network
// namespace id. Zombies are in none.
func processesIn(id string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("lab: list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != os.Getpid() && isIn(pid, id) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// isIn says whether the process is in the namespace. The first thread decides
// unless it has ended before the others: another program's thread that only
// visits does not make its process ours to kill.
func isIn(pid int, id string) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if is, err := os.Readlink(filepath.Join(proc, "ns/net")); err == nil {
		return is == id
	}
	tasks, _ := filepath.Glob(filepath.Join(proc, "task/*/ns/net"))
	for _, t := range tasks {
		if is, err := os.Readlink(t); err == nil && is == id {
			return true
		}
	}
	return false
}

// killProcesses kills all processes in the namespace and returns when they are
// dead. It repeats because a process may fork while it is being killed.
func killProcesses(id string) error {
	for {
		pids, err := processesIn(id)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := kill(pid, id); err != nil {
				return err
			}
		}
	}
}

// kill kills a process, if it is still in the namespace, and waits for its end.
// A pidfd makes sure that all of this is about one process.
func kill(pid int, id string) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("lab: open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if !isIn(pid, id) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("lab: kill process %d: %w", pid, err)
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// commandOf names a process for messages.
func commandOf(pid int) string {
	comm, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("%s (process %d)", strings.TrimSpace(string(comm)), pid)
}

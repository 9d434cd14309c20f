package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"junction/internal/lab"
)

// TestKill kills instances in the middle of their work with SIGKILL: nothing of
// them may remain, and the next one starts at once on the same NIC.
func TestKill(t *testing.T) {
	onNIC(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{Queues: 2})
		mounts := hostMounts(t)
		for range 3 {
			i, addr := r.startServer(t, "redis")
			require.NoError(t, setAndGet(newRESP(r.mustDial(addr, time.Minute)), 0, 100))
			held := heldBy(t, i.cmd.Process.Pid)
			require.NotEmpty(t, held.processes)
			require.NotEmpty(t, held.memfds)
			if v.driver == "afxdp" {
				require.NotEmpty(t, held.programs, "no XDP program held")
			}
			i.signal(syscall.SIGKILL)
			require.Equal(t, 128+9, i.exit())
			held.requireGone(t)
			r.requireBareNIC(t)
		}
		require.Equal(t, mounts, hostMounts(t))
		i, addr := r.startServer(t, "redis")
		checkRedis(t, r, addr)
		i.terminate(0)
		r.requireBareNIC(t)
	})
}

// holding is what a process and its descendants hold of the host.
type holding struct {
	processes []string // directories in /proc
	memfds    []string // device and inode
	programs  []ebpf.ProgramID
}

// heldBy looks at a process and its descendants.
func heldBy(t *testing.T, pid int) holding {
	t.Helper()
	var h holding
	for _, p := range family(t, pid) {
		dir := filepath.Join("/proc", strconv.Itoa(p))
		h.processes = append(h.processes, dir+" "+startTime(dir))
		h.memfds = append(h.memfds, memfds(dir)...)
		h.programs = append(h.programs, programs(t, dir)...)
	}
	return h
}

// requireGone waits for the end of what was held: the kernel frees it when the
// last process has ended, which SIGKILL begins and nobody can wait for.
func (h holding) requireGone(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return len(h.left()) == 0 }, 30*time.Second, 5*time.Millisecond)
	require.Empty(t, h.left())
}

func (h holding) left() (left []string) {
	for _, p := range h.processes {
		dir, start, _ := strings.Cut(p, " ")
		if startTime(dir) == start {
			left = append(left, "process "+dir)
		}
	}
	for _, id := range h.programs {
		if p, err := ebpf.NewProgramFromID(id); err == nil {
			p.Close()
			left = append(left, fmt.Sprint("BPF program ", id))
		}
	}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		for _, m := range memfds(dir) {
			for _, held := range h.memfds {
				if m == held {
					left = append(left, "memfd "+m+" in "+dir)
				}
			}
		}
	}
	return left
}

// family returns a process and all its descendants.
func family(t *testing.T, pid int) []int {
	t.Helper()
	all := []int{pid}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	parents := make(map[int]int)
	for _, f := range files {
		if fields := statFields(filepath.Dir(f)); len(fields) > 1 {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			parents[child], _ = strconv.Atoi(fields[1])
		}
	}
	for n := 0; n < len(all); n++ {
		for child, parent := range parents {
			if parent == all[n] {
				all = append(all, child)
			}
		}
	}
	return all
}

// statFields returns the fields of /proc/PID/stat from the state on (proc_pid_stat(5)).
func statFields(dir string) []string {
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// startTime tells a process from a later one with the same id; "" for none,
// also for one that only waits for its parent to notice.
func startTime(dir string) string {
	f := statFields(dir)
	if len(f) < 20 || f[0] == "Z" {
		return ""
	}
	return f[19]
}

// memfds returns identities of the memory files that a process has open.
func memfds(dir string) (ids []string) {
	fds, _ := filepath.Glob(filepath.Join(dir, "fd", "*"))
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !strings.HasPrefix(target, "/memfd:") {
			continue
		}
		var st syscall.Stat_t
		if syscall.Stat(fd, &st) == nil {
			ids = append(ids, fmt.Sprint(st.Dev, "/", st.Ino))
		}
	}
	return ids
}

// programs returns the BPF programs that a process holds, directly or by a link.
func programs(t *testing.T, dir string) (ids []ebpf.ProgramID) {
	t.Helper()
	infos, _ := filepath.Glob(filepath.Join(dir, "fdinfo", "*"))
	for _, f := range infos {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // closed meanwhile
		}
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			var id ebpf.ProgramID
			if n, _ := fmt.Sscanf(lines.Text(), "prog_id: %d", &id); n == 1 {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// requireBareNIC expects the NIC as the lab made it, and no other link beside it.
func (r *rig) requireBareNIC(t *testing.T) {
	t.Helper()
	bare := func() bool {
		var ok bool
		require.NoError(t, r.Server.Do(func() error {
			links, err := netlink.LinkList()
			ok = err == nil && len(links) == 2 && noXDP(links)
			return err
		}))
		return ok
	}
	require.Eventually(t, bare, 30*time.Second, 5*time.Millisecond, "XDP programs or links remain")
}

func noXDP(links []netlink.Link) bool {
	for _, l := range links {
		if x := l.Attrs().Xdp; x != nil && x.Attached {
			return false
		}
	}
	return true
}

// hostMounts lists the host's mounts, without the named network namespaces of
// labs: those of other tests come and go.
func hostMounts(t *testing.T) (mounts []string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, " /run/netns") {
			mounts = append(mounts, line)
		}
	}
	return mounts
}

package e2e

import (
	"context"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// enclaveStatus is what junction_ctl sched enclave show prints, as far as the
// tests read it.
type enclaveStatus struct {
	Status    string           `json:"status"`
	PID       int              `json:"pid"`
	Instances []instanceShares `json:"instances"` // by name
	Threads   []struct {
		TID int `json:"tid"`
	} `json:"threads"`
}

type instanceShares struct {
	Name      string `json:"name"`
	PID       int    `json:"pid"`
	Class     string `json:"class"`
	Want      int    `json:"want"`
	Granted   int    `json:"granted"`
	Cores     string `json:"cores"`
	Group     string `json:"group"`
	GrantedUS int64  `json:"granted_us"`
	Grants    uint64 `json:"grants"`
}

// startConfigured starts an instance with a configuration file.
func (r *rig) startConfigured(name, config string, program ...string) *instance {
	r.t.Helper()
	file := writeFile(r.t, workDir(r.t), name+".config", []byte(config))
	all := append([]string{file}, args(r.flags("--name", name), program)...)
	c := r.Server.Command(context.Background(), junctionRun, all...)
	return launch(r.t, c, c.Cmd)
}

// needScheduler skips where threads cannot be watched for reasons that are not
// ours.
func needScheduler(t *testing.T) {
	t.Helper()
	if ns, err := os.Readlink("/proc/self/ns/pid"); err == nil && ns != "pid:[4026531836]" {
		t.Skip("this is a PID namespace of its own; BPF programs see the host's numbers")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skip("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF):", err)
	}
}

// class is the scheduling class of a process's first thread.
func class(t *testing.T, pid int) uint32 {
	t.Helper()
	attr, err := unix.SchedGetAttr(pid, 0)
	require.NoError(t, err)
	return attr.Policy
}

// bestEffort tells whether an instance has only what nobody else wants: its CPU
// cgroup is idle, or where there is none its threads are SCHED_IDLE.
func (i *instanceShares) bestEffort(t *testing.T) bool {
	t.Helper()
	if i.Group == "" {
		return class(t, i.PID) == unix.SCHED_IDLE
	}
	require.EqualValues(t, unix.SCHED_NORMAL, class(t, i.PID))
	in, err := os.ReadFile("/proc/" + strconv.Itoa(i.PID) + "/cgroup")
	require.NoError(t, err)
	idle, err := os.ReadFile("/sys/fs/cgroup/cpu" + i.Group + "/cpu.idle")
	require.NoError(t, err)
	return strings.Contains(string(in), i.Group) && strings.TrimSpace(string(idle)) == "1"
}

// askRedis makes some requests at once, each of which must be answered.
func askRedis(t *testing.T, r *rig) {
	t.Helper()
	db := hostPort(netip.AddrPortFrom(addr4, 6379))
	const requests = "2000"
	r.client("redis-cli", append(db, "del", "counter:__rand_int__")...)
	r.client("redis-benchmark", append(db, "-n", requests, "-c", "20", "-t", "incr", "--csv")...)
	require.Equal(t, requests, strings.TrimSpace(r.client("redis-cli", append(db, "get", "counter:__rand_int__")...)))
}

// TestCores: redis, latency critical, and a program that computes for ever, best
// effort, share an enclave under ias. Each gets cores, redis goes idle when it has
// nothing to do, and whatever ends the scheduling leaves both as they were.
func TestCores(t *testing.T) {
	needScheduler(t)
	needProcessors(t, 2)
	var cpus unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &cpus))
	var list []string
	for c := range 1024 {
		if cpus.IsSet(c) && len(list) < 2 {
			list = append(list, strconv.Itoa(c))
		}
	}
	eachServerRig(t, func(t *testing.T, r *rig) {
		db := r.startConfigured("db", "runtime_priority lc\nruntime_guaranteed_kthreads 1\nruntime_kthreads 2\nruntime_qdelay_us 20\n",
			need(t, "redis-server"), "--protected-mode", "no", "--save", "")
		db.await("Ready to accept connections")
		batch := r.startConfigured("batch", "runtime_priority be\nruntime_kthreads 2\n", "sh", "-c", "echo ready; while :; do :; done")
		batch.await("ready")

		r.ctl(new(any), "sched", "enclave", "create", "e", "--cpus", strings.Join(list, ","))
		r.ctl(new(any), "sched", "policy", "set", "e", "ias")
		r.ctl(new(any), "sched", "push", "e", "batch", "db")
		until := func(what string, ok func(batch, db instanceShares) bool) (e enclaveStatus) {
			t.Helper()
			require.Eventually(t, func() bool {
				r.ctl(&e, "sched", "enclave", "show", "e")
				return len(e.Instances) == 2 && ok(e.Instances[0], e.Instances[1])
			}, time.Minute, 50*time.Millisecond, what)
			return e
		}
		e := until("batch computes, redis has nothing to do", func(b, d instanceShares) bool {
			return b.Class == "be" && b.Want > 0 && b.Cores != "" && d.Class == "lc" && d.Want == 0 && d.Cores == ""
		})
		pids := [2]int{e.Instances[0].PID, e.Instances[1].PID}
		require.True(t, e.Instances[0].bestEffort(t))
		require.EqualValues(t, unix.SCHED_NORMAL, class(t, pids[1]))

		before := e.Instances
		askRedis(t, r)
		until("both have had cores", func(b, d instanceShares) bool {
			return d.GrantedUS > before[1].GrantedUS && b.GrantedUS > before[0].GrantedUS
		})
		e = until("redis goes idle again", func(b, d instanceShares) bool { return d.Want == 0 && d.Cores == "" && b.Cores != "" })

		require.NoError(t, unix.Kill(e.PID, unix.SIGKILL))
		e = until("without a policy both have all kthreads", func(b, d instanceShares) bool { return b.Granted == 2 && d.Granted == 2 })
		checkClasses := func() {
			require.EqualValues(t, unix.SCHED_NORMAL, class(t, pids[0]))
			require.EqualValues(t, unix.SCHED_NORMAL, class(t, pids[1]))
		}
		checkClasses()
		require.False(t, e.Instances[0].bestEffort(t))
		r.ctl(new(any), "sched", "policy", "set", "e", "ias")
		e = until("batch has a core again", func(b, _ instanceShares) bool { return b.Cores != "" })
		require.True(t, e.Instances[0].bestEffort(t))
		askRedis(t, r)

		r.ctl(new(any), "sched", "enclave", "destroy", "e")
		checkClasses()
		askRedis(t, r)
		db.terminate(0)
		batch.signal(syscall.SIGKILL)
		batch.exit()
	})
}

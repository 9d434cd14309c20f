package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"junction/internal/lab"
	"junction/internal/monitor"
	"junction/internal/monitor/wire"
)

// schedBenchmarks lists the cases of Sched.
func schedBenchmarks(o Options) []benchmark {
	return []benchmark{
		{caseShared, "redis, latency critical, asked by one client that pauses for " + askPause.String() + " after each answer, beside a batch job on all CPUs; left is what redis, its network and its client leave of the CPUs without it",
			[]System{Native{}, instances{o.JunctionRun}}, wanting(runShared, sharedTargets), []string{alone, "native"}},
		{caseMessages, "a policy in a process of its own; delivery: until a message is read; decision: message, decision and commit, through both rings, who waits for it sleeps",
			agents(o), runMessages, []string{"ghOSt, global agent"}},
		{caseCommit, "transactions: check and state, and the messages about them, without what the kernel is told",
			groups(), runCommit, []string{"ghOSt, group of ten"}},
		{caseHandoff, "a core changes hands; two threads or instances and one core", handoffs(), runHandoff, []string{"ghOSt, thread forced"}},
		{caseReplace, fmt.Sprintf("redis, asked on %d connections, while fifo-central and shinjuku follow each other; blackout: from fifo-central's end to shinjuku's first decision; the longest gap is between any two answers", replaceConnections),
			[]System{replacedThreads, replacedInstance}, wanting(runReplace, replaceTargets), []string{replacedThreads.Name()}},
		{caseIdle, "CPU time of monitor, policy and guard in ms a second, without the network server, while so many threads, or light instances, execute for a moment once a second",
			[]System{idleThreads, idleInstances}, runIdle, []string{idleThreads.Name()}},
	}
}

// enclaveName is that of the only enclave of a case.
const enclaveName = "bench"

// sched gives an order about the enclave, and returns how it stands after it.
func (d *daemon) sched(ctx context.Context, verb string, o wire.Sched) (r monitor.SchedResult, err error) {
	o.Enclave = enclaveName
	err = d.order(ctx, verb, o, &r)
	return r, err
}

// enclave makes an enclave of some CPUs under a policy.
func (d *daemon) enclave(ctx context.Context, cpus []int, policy string, args ...string) error {
	if _, err := d.sched(ctx, wire.SchedCreate, wire.Sched{CPUs: cpuList(cpus)}); err != nil {
		return err
	}
	_, err := d.sched(ctx, wire.SchedPolicy, wire.Sched{Policy: policy, Args: args})
	return err
}

// dissolve ends the enclave; all in it is as it was before.
func (d *daemon) dissolve(ctx context.Context) error {
	_, err := d.sched(ctx, wire.SchedDestroy, wire.Sched{})
	return err
}

// join brings instances into the enclave by their names.
func (d *daemon) join(ctx context.Context, names ...string) error {
	var s monitor.Status
	if err := d.ask(ctx, "status", &s); err != nil {
		return err
	}
	ids := map[string]uint32{}
	for _, i := range s.Instances {
		ids[i.Name] = i.ID
	}
	for _, name := range names {
		if _, err := d.sched(ctx, wire.SchedJoin, wire.Sched{ID: ids[name]}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func cpuList(cpus []int) string {
	var list []string
	for _, c := range cpus {
		list = append(list, strconv.Itoa(c))
	}
	return strings.Join(list, ",")
}

// tenant runs programs in instances behind a daemon that others share.
type tenant struct {
	path   string // of junction_run
	daemon *daemon
	name   string
	config string // text of its configuration file
}

// Name implements System.
func (t tenant) Name() string { return "instance " + t.name }

func (t tenant) prepare(_ *lab.Lab, p Program) (*plan, error) {
	file := filepath.Join(t.daemon.dir, t.name+".config")
	if err := os.WriteFile(file, []byte(t.config), 0o600); err != nil {
		return nil, err
	}
	argv := []string{t.path, file, "--mode", "server", "--socket", t.daemon.socket(), "--name", t.name, "--"}
	return &plan{argv: append(argv, p.Argv...), undo: func() error { return os.Remove(file) }, daemon: t.daemon}, nil
}

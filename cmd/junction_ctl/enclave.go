package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"junction/coresched"
	"junction/coresched/live"
	"junction/coresched/plugin"
	"junction/coresched/policies"
	"junction/internal/monitor"
	"junction/internal/monitor/wire"
	"junction/internal/usage"
)

func (c *ctl) enclaveCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "enclave COMMAND", Short: "Make, show and end sets of cores with a policy", DisableFlagsInUseLine: true, Args: cobra.ArbitraryArgs, RunE: group}
	cmd.AddCommand(
		c.enclaveCreateCommand(),
		command("list", "List enclaves", cobra.NoArgs, c.enclaveList),
		command("show ENCLAVE", "Show one enclave and the threads in it", cobra.ExactArgs(1), c.enclaveShow),
		command("destroy ENCLAVE", "End an enclave: its threads get back what they had", cobra.ExactArgs(1), c.enclaveDestroy),
	)
	for _, sub := range cmd.Commands() {
		if sub.Name() == "show" || sub.Name() == "destroy" {
			sub.ValidArgsFunction = c.completeEnclave(cobra.NoFileCompletions)
		}
	}
	return cmd
}

func (c *ctl) enclaveCreateCommand() *cobra.Command {
	var cpus string
	var exclusive bool
	var timeout time.Duration
	cmd := command("create ENCLAVE --cpus LIST", "Make an enclave of cores that are in none", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error {
			if _, err := coresched.ParseCPUSet(cpus); err != nil {
				return usage.Errorf("--cpus: %w", err)
			}
			if timeout < 0 || timeout > 0 && timeout < time.Millisecond {
				return usage.Errorf("--runnable-timeout %v: take 0, which is never, or a millisecond or more", timeout)
			}
			return c.enclaveOrder(ctx, wire.SchedCreate, wire.Sched{Enclave: args[0], CPUs: cpus, Exclusive: exclusive, RunnableTimeoutUS: timeout.Microseconds()})
		})
	cmd.Flags().StringVar(&cpus, "cpus", "", "cores, such as 0-3,8")
	cmd.Flags().BoolVar(&exclusive, "exclusive", false, "keep everybody else off these cores (cpusets of cgroup v1)")
	cmd.Flags().DurationVar(&timeout, "runnable-timeout", 0, "a policy that lets a thread wait longer is taken away; 0: never, as runnable_timeout_us is in the JSON of sched enclave show")
	_ = cmd.MarkFlagRequired("cpus") // fails only for flags that do not exist
	cmd.Long = createLong
	return cmd
}

const createLong = `Make an enclave of cores that are in none.

With --exclusive nobody else runs on them: all tasks of the cpuset that junctiond
lies in, as a rule all of the machine's, are moved to a cpuset of the other cores, of
which there must be one. Threads of the kernel stay where they are. Tasks are moved
back, and have the affinity that they had, when the enclave ends, when junctiond does
in whatever way, and from the loss of a policy until there is the next one. It takes
the cpuset controller of cgroup v1; partitions of cgroup v2 are not supported.`

func (c *ctl) policyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policy COMMAND", Short: "Choose the policy of an enclave", DisableFlagsInUseLine: true, Args: cobra.ArbitraryArgs, RunE: group}
	var params []string
	var spin, start time.Duration
	set := command("set ENCLAVE POLICY [flags]", "Put a policy, by name or a program's path, in charge, in the place of the one before", cobra.ExactArgs(2),
		func(ctx context.Context, args []string) error {
			return c.policySet(ctx, args[0], args[1], params, spin, start)
		})
	set.Long, set.Example = setLong, setExample
	set.ValidArgsFunction = c.completeEnclave(completePolicy)
	set.Flags().StringArrayVar(&params, "param", nil, "parameter of the policy, such as slice=30us; repeatable")
	set.Flags().DurationVar(&spin, "spin", 0, "the policy looks for work this long before it sleeps; for a core of its own")
	set.Flags().DurationVar(&start, "start-timeout", plugin.StartTimeout, "a program that does not serve a policy after this time is given up")
	cmd.AddCommand(set)
	return cmd
}

var setLong = `Put a policy, by name or a program's path, in charge of an enclave.

It takes the place of the one before, which goes on until the new one is ready. If that
does not start, or is not ready in time (--start-timeout), nothing has changed.
"blackout" is for how long the enclave was without a policy: until the new one's first
decision, if a thread waited for one.

Policies, with parameters and what they are unless given by --param:

` + policies.Help()

const setExample = `  junction_ctl sched policy set work shinjuku --param slice=1ms
  junction_ctl sched policy set work ./lifo`

// longestStart is what --start-timeout may be.
const longestStart = 10 * time.Minute

func (c *ctl) pushCommand() *cobra.Command {
	cmd := command("push ENCLAVE TID|NAME...", "Bring threads, by their numbers, or instances, by name, into an enclave", cobra.MinimumNArgs(2), c.push)
	cmd.Long = pushLong
	cmd.ValidArgsFunction = c.completeEnclave(func(cmd *cobra.Command, _ []string, part string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return c.completeName(cmd, nil, part)
	})
	return cmd
}

const pushLong = `Bring threads, by their numbers, or instances, by name, into an enclave.

A thread is scheduled by itself: its wake-ups and sleeps are told to the policy. An
instance is scheduled as a whole: it says how many of its kthreads it could use, and
has as many threads of its programs execute as get a core. What it wants stands in
its configuration, with Caladan's meaning: runtime_kthreads (at most), runtime_guaranteed_kthreads
(get a core whenever they want one), runtime_spinning_kthreads (always want one),
runtime_priority (lc or, as the default, be) and runtime_qdelay_us (a thread that waits longer is
congestion, for which ias takes cores from best effort).`

func (c *ctl) enclaveOrder(ctx context.Context, verb string, o wire.Sched) error {
	return c.enclaveOrderWithin(ctx, askTime, verb, o)
}

func (c *ctl) enclaveOrderWithin(ctx context.Context, most time.Duration, verb string, o wire.Sched) error {
	var r monitor.SchedResult
	if err := c.orderWithin(ctx, most, verb, o, &r); err != nil {
		return err
	}
	return c.print(struct {
		Schema int `json:"schema"`
		monitor.SchedResult
	}{1, r}, func(w io.Writer) {
		writeEnclaves(w, []live.EnclaveStatus{r.EnclaveStatus})
		if r.BlackoutUS > 0 {
			fmt.Fprintf(w, "\nblackout\t%.0f µs\n", r.BlackoutUS)
		}
	})
}

func (c *ctl) enclaveDestroy(ctx context.Context, args []string) error {
	if err := c.order(ctx, wire.SchedDestroy, wire.Sched{Enclave: args[0]}, new(monitor.SchedResult)); err != nil {
		return err
	}
	return c.print(struct {
		Schema    int    `json:"schema"`
		Destroyed string `json:"destroyed"`
	}{1, args[0]}, func(w io.Writer) { fmt.Fprintf(w, "%s\tdestroyed\n", args[0]) })
}

func (c *ctl) policySet(ctx context.Context, enclave, policy string, params []string, spin, start time.Duration) error {
	if start <= 0 || start > longestStart {
		return usage.Errorf("--start-timeout %v: take more than 0 and at most %v", start, longestStart)
	}
	o := wire.Sched{Enclave: enclave, Policy: policy, StartTimeoutUS: max(1, start.Microseconds())}
	if strings.Contains(policy, "/") {
		path, err := filepath.Abs(policy)
		if err != nil {
			return err
		}
		o.Policy = path
	}
	for _, p := range params {
		o.Args = append(o.Args, "--param", p)
	}
	if spin != 0 {
		o.Args = append(o.Args, "--spin", spin.String())
	}
	return c.enclaveOrderWithin(ctx, askTime+start, wire.SchedPolicy, o)
}

func (c *ctl) push(ctx context.Context, args []string) error {
	threads := wire.Sched{Enclave: args[0]}
	var names []string
	for _, text := range args[1:] {
		tid, err := strconv.Atoi(text)
		switch {
		case err != nil:
			names = append(names, text)
		case tid < 1:
			return usage.Errorf("%q is no thread's number; ls /proc/PID/task lists them", text)
		default:
			threads.TIDs = append(threads.TIDs, tid)
		}
	}
	for n, name := range names {
		i, err := c.instance(ctx, name)
		if err != nil {
			return err
		}
		o := wire.Sched{Enclave: args[0], ID: i.ID}
		if n == len(names)-1 && len(threads.TIDs) == 0 {
			return c.enclaveOrder(ctx, wire.SchedJoin, o)
		}
		if err := c.order(ctx, wire.SchedJoin, o, new(monitor.SchedResult)); err != nil {
			return err
		}
	}
	return c.enclaveOrder(ctx, wire.SchedPush, threads)
}

// schedLook asks for all enclaves and threads.
func (c *ctl) schedLook(ctx context.Context) (top monitor.SchedTop, err error) {
	return top, c.ask(ctx, wire.SchedLook, &top)
}

func (c *ctl) enclaveList(ctx context.Context, _ []string) error {
	top, err := c.schedLook(ctx)
	if err != nil {
		return err
	}
	return c.print(struct {
		Schema   int                  `json:"schema"`
		Enclaves []live.EnclaveStatus `json:"enclaves"`
	}{1, top.Enclaves}, func(w io.Writer) { writeEnclaves(w, top.Enclaves) })
}

func (c *ctl) enclaveShow(ctx context.Context, args []string) error {
	top, err := c.schedLook(ctx)
	if err != nil {
		return err
	}
	for _, e := range top.Enclaves {
		if e.Name != args[0] {
			continue
		}
		threads := []live.ThreadStatus{}
		for _, t := range top.Threads {
			if t.Enclave == e.Name {
				threads = append(threads, t)
			}
		}
		instances := slices.DeleteFunc(top.Instances, func(i live.InstanceStatus) bool { return i.Enclave != e.Name })
		return c.print(struct {
			Schema int `json:"schema"`
			live.EnclaveStatus
			Threads   []live.ThreadStatus   `json:"threads"`
			Instances []live.InstanceStatus `json:"instances"`
		}{1, e, threads, instances}, func(w io.Writer) { writeEnclave(w, e, threads, instances) })
	}
	return fmt.Errorf("no enclave %q; junction_ctl sched enclave list lists them", args[0])
}

// topTime is what top's rates are of.
const topTime = time.Second

type schedTopReport struct {
	Schema int `json:"schema"`
	monitor.SchedTop
	HandoffsPerS map[string]float64 `json:"handoffs_per_s"` // by enclave
}

func (c *ctl) schedTop(ctx context.Context, _ []string) error {
	first, err := c.schedLook(ctx)
	if err != nil {
		return err
	}
	from := time.Now()
	select {
	case <-time.After(topTime):
	case <-ctx.Done():
		return nil
	}
	r := schedTopReport{Schema: 1, HandoffsPerS: map[string]float64{}}
	if r.SchedTop, err = c.schedLook(ctx); err != nil {
		return err
	}
	seconds := time.Since(from).Seconds()
	for _, e := range r.Enclaves {
		for _, f := range first.Enclaves {
			if f.Name == e.Name && f.Handoffs <= e.Handoffs {
				r.HandoffsPerS[e.Name] = float64(e.Handoffs-f.Handoffs) / seconds
			}
		}
	}
	return c.print(r, func(w io.Writer) { writeSchedTop(w, &r) })
}

func writeEnclaves(w io.Writer, all []live.EnclaveStatus) {
	fmt.Fprintln(w, "ENCLAVE\tCPUS\tTHREADS\tSTATUS\tPOLICY\tPID\tHANDOFFS")
	for _, e := range all {
		policy, pid := "-", "-"
		if e.AgentOnline {
			policy, pid = plain(e.Policy), strconv.Itoa(e.PID)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%d\n", e.Name, cpusText(&e), e.Tasks, e.Status, policy, pid, e.Handoffs)
	}
}

// cpusText says which cores an enclave has, and whether alone.
func cpusText(e *live.EnclaveStatus) string {
	text := e.CPUs
	if e.CPUsOffline != "" {
		text += " (" + e.CPUsOffline + " offline)"
	}
	switch {
	case e.Held:
		return text + " (exclusive)"
	case e.Exclusive:
		return text + " (exclusive with a policy)"
	}
	return text
}

// timeoutText says how long a policy may let a thread wait.
func timeoutText(e *live.EnclaveStatus) string {
	if e.RunnableTimeoutUS == 0 {
		return "never"
	}
	return (time.Duration(e.RunnableTimeoutUS) * time.Microsecond).String()
}

func writeEnclave(w io.Writer, e live.EnclaveStatus, threads []live.ThreadStatus, instances []live.InstanceStatus) {
	writeEnclaves(w, []live.EnclaveStatus{e})
	fmt.Fprintf(w, "\nagent_online\t%v\trunnable_timeout\t%s\tabi_version\t%d\n", e.AgentOnline, timeoutText(&e), e.ABIVersion)
	fmt.Fprintf(w, "threads ever\t%d\tmessages\t%d\tlost\t%d\n", e.Entered, e.Messages, e.Lost)
	fmt.Fprintf(w, "policies\t%d\tcrashes\t%d\tstalls\t%d\t%s\n\n", e.Policies, e.Crashes, e.Stalls, plain(e.LastEnd))
	if e.TakeoverUS > 0 {
		fmt.Fprintf(w, "another junctiond took over\twithout a policy for %v\n\n", time.Duration(e.TakeoverUS*float64(time.Microsecond)).Round(time.Microsecond))
	}
	writeShares(w, instances)
	writeThreads(w, threads)
}

func writeShares(w io.Writer, all []live.InstanceStatus) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintln(w, "INSTANCE\tENCLAVE\tCLASS\tWANTS\tMAY USE\tCORES\tGRANTED\tWAITED")
	for _, i := range all {
		cores := cmp.Or(i.Cores, "-")
		if i.Held {
			cores += " (" + strings.TrimSuffix("held: "+i.HeldWhy, ": ") + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%v\t%v\n", plain(i.Name), i.Enclave, i.Class, i.Want, i.Granted, cores, micro(i.GrantedUS), micro(i.WaitedUS))
	}
	fmt.Fprintln(w)
}

func writeThreads(w io.Writer, all []live.ThreadStatus) {
	fmt.Fprintln(w, "THREAD\tNAME\tENCLAVE\tSTATE\tCPU\tGRANTED\tWAITED")
	for _, t := range all {
		cpu := "-"
		if t.CPU >= 0 {
			cpu = strconv.Itoa(t.CPU)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%v\t%v\n", t.TID, plain(t.Name), t.Enclave, t.State, cpu, micro(t.GrantedUS), micro(t.WaitedUS))
	}
}

func micro(us int64) time.Duration { return time.Duration(us) * time.Microsecond }

// plain shows what others have named as one word of what can be printed: a thread
// may call itself what a terminal heeds.
func plain(name string) string {
	quoted := strconv.Quote(name)
	return quoted[1 : len(quoted)-1]
}

func writeSchedTop(w io.Writer, r *schedTopReport) {
	writeEnclaves(w, r.Enclaves)
	for _, e := range r.Enclaves {
		fmt.Fprintf(w, "%s\t%.0f hand-offs/s\n", e.Name, r.HandoffsPerS[e.Name])
	}
	fmt.Fprintln(w)
	writeShares(w, r.Instances)
	writeThreads(w, r.Threads)
}

package main

import (
	"bytes"
	"io"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/coresched/live"
	"junction/internal/monitor"
)

func TestEnclaveTables(t *testing.T) {
	e := live.EnclaveStatus{Name: "work", CPUs: "0-3", Tasks: 2, Status: "active", AgentOnline: true, Policy: "cfs", PID: 7, Handoffs: 9, LastEnd: "replaced by cfs"}
	threads := []live.ThreadStatus{
		{TID: 10, Name: "sh", Enclave: "work", State: "running", CPU: 3, GrantedUS: 1500, WaitedUS: 2500},
		{TID: 11, Name: "make\n\x1b[31m", Enclave: "work", State: "blocked", CPU: -1},
	}
	instances := []live.InstanceStatus{{Name: "web", Enclave: "work", Class: "lc", Want: 2, Granted: 1, Cores: "3", Held: true, HeldWhy: "it did not comply in time"}}
	var out bytes.Buffer
	require.NoError(t, tabulate(&out, func(w io.Writer) { writeEnclave(w, e, threads, instances) }))
	for _, want := range []string{"work     0-3", "active", "replaced by cfs", "1.5ms", "2.5ms", `make\n\x1b[31m `, "blocked", "web", "3 (held: it did not comply in time)"} {
		require.Contains(t, out.String(), want)
	}
	require.Regexp(t, `runnable_timeout +never`, out.String())
	out.Reset()
	e.RunnableTimeoutUS = 1500
	require.NoError(t, tabulate(&out, func(w io.Writer) { writeEnclave(w, e, nil, nil) }))
	require.Regexp(t, `runnable_timeout +1.5ms`, out.String())
	out.Reset()
	r := schedTopReport{SchedTop: monitor.SchedTop{Enclaves: []live.EnclaveStatus{e}, Threads: threads}, HandoffsPerS: map[string]float64{"work": 41.6}}
	require.NoError(t, tabulate(&out, func(w io.Writer) { writeSchedTop(w, &r) }))
	require.Contains(t, out.String(), "42 hand-offs/s")
}

func TestEnclaveErrors(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	for _, args := range [][]string{
		{"enclave", "create", "e"},
		{"enclave", "create", "--cpus", "0"},
		{"enclave", "list"},
		{"enclave", "show", "e"},
		{"enclave", "destroy", "e"},
		{"policy", "set", "e"},
		{"policy", "set", "e", "cfs"},
		{"push", "e"},
		{"push", "e", "x"},
		{"push", "e", "0"},
		{"top"},
	} {
		_, err := runCtl(t, append([]string{"--socket", socket, "sched"}, args...)...)
		require.Error(t, err, "%v", args)
	}
}

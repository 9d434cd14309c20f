package main

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/internal/usage"
)

// TestWrongArguments: each is answered by one line that says what is right.
func TestWrongArguments(t *testing.T) {
	for args, want := range map[string]string{
		"bogus":                                 `no command "bogus"; see junction_ctl --help`,
		"stat":                                  "did you mean stats or status?",
		"show":                                  "usage: junction_ctl show NAME",
		"status x":                              "usage: junction_ctl status",
		"exec web":                              "usage: junction_ctl exec NAME [--] PROGRAM",
		"restart":                               "usage: junction_ctl restart netserver",
		"restart x":                             "only netserver can be restarted",
		"trace -1":                              "see junction_ctl trace --help",
		"limit web":                             "give --rate, --weight or both",
		"limit web --weight 0":                  "--weight 0: accepted: 1 to 1000",
		"trace x":                               "want a number of frames",
		"signal web NOTHING":                    "want a name such as TERM",
		"switch --auto on --queues 0":           "--queues 0: accepted: from 1",
		"switch --auto on --rate NaN":           "accepted: packets per second, above 0",
		"sched enclave create e":                `"cpus" not set; usage: junction_ctl sched enclave create ENCLAVE --cpus LIST`,
		"sched enclave create e --cpus 1-":      `--cpus: "1-": not a list of cores`,
		"sched enclave lis":                     "did you mean list?",
		"sched push e -1":                       "see junction_ctl sched push --help",
		"sched push e 0":                        `"0" is no thread's number`,
		"sched sim":                             "usage: junction_ctl sched sim --policy P --workload W",
		"limit web --rat":                       "see junction_ctl limit --help",
		"switch --all":                          "accepted: direct, server, auto",
		"switch --auto maybe":                   "accepted: on, off",
		"switch web --auto on":                  "switch NAME --mode auto",
		"switch --auto off --queues 1":          "no meaning with --auto off",
		"switch web --mode direct --rate 1":     "give --auto on with them",
		"switch web --mode server --ports 80":   "--ports goes with --mode direct",
		"switch web --mode direct --ports http": "not a list of ports, such as 80,443/tcp",
		"switch web --mode direct --ports 80/sctp":                              "accepted: tcp, udp",
		"switch --auto on --ports 80":                                           "--auto is for all instances",
		"sched enclave create e --cpus 0 --runnable-timeout -5s":                "--runnable-timeout -5s",
		"sched enclave create e --cpus 0 --runnable-timeout 100ns":              "a millisecond or more",
		"sched sim --policy sol --workload exp":                                 "no load for workload exp",
		"sched sim --policy sol --workload nothing":                             "take bimodal, exp, fixed, rocksdb or a file",
		"sched sim --policy lottery --workload exp --load 0.5":                  "take one of biff",
		"sched sim --policy sol --workload exp --load 0.5 --param slice=1us":    "sol has none",
		"sched sim --policy sol --workload exp --load 0.5 --hints --kthreads 2": "give one of the two",
		"sched sim --policy sol --workload exp --load 0.5 --cost no":            "take ghost, stock or free",
		"status --socket /none/monitor.sock":                                    "start junctiond, or name its socket with --socket",
		"switch web --mode auto --wait":                                         "--wait has no meaning with --mode auto",
		"switch --all --wait --mode auto":                                       "--wait has no meaning with --mode auto",
		"sched policy set e sol --start-timeout 0s":                             "more than 0 and at most 10m",
	} {
		cmd := newCommand(io.Discard)
		cmd.SetArgs(strings.Fields(args))
		err := cmd.ExecuteContext(t.Context())
		require.ErrorContains(t, err, want, args)
		require.NotContains(t, err.Error(), "\n")
		code := usage.ExitWrong
		if strings.HasPrefix(args, "status --socket") {
			code = usage.ExitFailed
		}
		require.Equal(t, code, usage.ExitCode(err), args)
	}
}

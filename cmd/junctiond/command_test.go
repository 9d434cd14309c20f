package main

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/internal/usage"
)

// TestWrongFlags: each is refused, before anything is begun, by one line that says
// what is accepted.
func TestWrongFlags(t *testing.T) {
	for args, want := range map[string]string{
		"":                                                          "--nic IF and --addr CIDR are needed",
		"--nic lo --addr 198.18.0.2":                                `--addr "198.18.0.2": accepted: an address with its prefix length`,
		"--nic lo --addr 198.18.0.2/24 --mtu 9":                     "--mtu 9: accepted: 68 to 65535",
		"--nic lo --addr 198.18.0.2/24 --mac x":                     `--mac "x": accepted: a MAC address`,
		"--nic lo --addr 198.18.0.2/24 --spin -1s":                  "--spin -1s: accepted: a duration",
		"--nic lo --addr 198.18.0.2/24 --hang-after -1s":            "--hang-after -1s: accepted: a duration",
		"--nic lo --addr 198.18.0.2/24 --metrics x":                 `--metrics "x": accepted: an address and a port`,
		"--nic lo --addr 198.18.0.2/24 --gateway x":                 `--gateway "x": accepted: an address`,
		"--nic lo --addr 198.18.0.2/24 --direct-queues 0":           "--direct-queues 0: 1 to",
		"--nic lo --addr 198.18.0.2/24 --netserver /none":           "give its path with --netserver",
		"--nic lo --addr 198.18.0.2/24 --netserver /":               "lo is not an Ethernet NIC",
		"--nic no-such --addr 198.18.0.2/24 --netserver /":          `no such NIC: "no-such"`,
		"--nic lo --addr 198.18.0.2/24 --netserver / --driver dpdk": `--driver "dpdk": accepted: afxdp, tap, afpacket`,
	} {
		cmd := newCommand()
		cmd.SetArgs(append(strings.Fields(args), "--socket", t.TempDir()+"/monitor.sock"))
		cmd.SetOut(io.Discard)
		err := cmd.ExecuteContext(t.Context())
		require.ErrorContains(t, err, want, args)
		require.NotContains(t, err.Error(), "\n")
		code := usage.ExitWrong
		if strings.Contains(want, "NIC") { // this machine's
			code = usage.ExitFailed
		}
		require.Equal(t, code, usage.ExitCode(err), args)
	}
}

package cli

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/config"
	"junction/libos/kthreads"
)

var testHost = Host{
	Environ: []string{"PATH=/bin", "HOME=/root"},
	Cwd:     "/work",
	UID:     7, GID: 8,
	CPUs: 4,
	NICs: func() []string { return []string{"va", "vb"} },
}

// parse runs the command line and returns the settings that it leads to.
func parse(host Host, args ...string) (*Settings, error) {
	var got *Settings
	cmd := New(host, "v", Actions{
		Run:   func(s *Settings) error { got = s; return nil },
		Check: func(*Settings, bool) error { return nil },
	})
	cmd.SetArgs(args)
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	err := cmd.Execute()
	return got, err
}

// mustParse is parse of a right command line.
func mustParse(t *testing.T, args ...string) *Settings {
	t.Helper()
	got, err := parse(testHost, args...)
	require.NoError(t, err)
	require.NotNil(t, got)
	return got
}

func configFile(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "x.config")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestDefaults(t *testing.T) {
	require.Equal(t, &Settings{
		Name: "ls", Mode: ModeNone, Engine: "auto", Boundary: "kill", Quantum: kthreads.DefaultQuantum, Watchdog: true,
		Argv: []string{"/bin/ls", "-l", "--mode", "x", "--"},
		Env:  testHost.Environ, Cwd: "/work", Root: "/", UID: 7, GID: 8,
		LogFormat: "text", LogLevel: slog.LevelWarn,
	}, mustParse(t, "--", "/bin/ls", "-l", "--mode", "x", "--"))
}

func TestEveryFlag(t *testing.T) {
	got := mustParse(t, "--mode", "direct", "--nic", "va:2", "--driver=tap", "--ip", "198.18.0.2/24", "--ip", "fd00::2/64",
		"--gateway", "198.18.0.1", "--gateway", "fe80::1", "--mtu", "9000", "--spin", "50us", "--pcap", "p.pcap",
		"--name", "db", "--kthreads", "2", "--quantum", "1ms", "--engine", "auto", "--env", "A=1", "--env", "HOME=/h", "--env", "A=x=y",
		"--cwd", "/tmp/", "--uid", "0", "--gid", "4294967294", "--rw", "data", "--rw", "/var/lib/x/", "--rootfs", "r",
		"--strace", "--log", "json", "--log-level", "error", "--stats", "--", "p")
	require.Equal(t, &Settings{
		Name: "db", Mode: ModeDirect, NIC: "va", Queues: 2, Driver: "tap",
		Prefixes: []netip.Prefix{netip.MustParsePrefix("198.18.0.2/24"), netip.MustParsePrefix("fd00::2/64")},
		Gateways: []netip.Addr{netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("fe80::1")},
		MTU:      9000, Spin: 50 * time.Microsecond, Pcap: "p.pcap",
		Engine: "auto", Boundary: "kill", Kthreads: 2, Quantum: time.Millisecond, Watchdog: true, Argv: []string{"p"},
		Env: []string{"PATH=/bin", "HOME=/h", "A=x=y"}, Cwd: "/tmp", UID: 0, GID: 4294967294,
		Root: "/work/r", ReadWrite: []string{"/work/data", "/var/lib/x"},
		Strace: true, LogFormat: "json", LogLevel: slog.LevelInfo, Stats: "text",
	}, got)
	require.Equal(t, "json", mustParse(t, "--stats=json", "--", "p").Stats)
}

const fullConfig = `host_addr 198.18.0.2
host_netmask 255.255.255.0
host_gateway 198.18.0.1
host_mtu 1400
host_mac 02:00:00:00:00:02
static_arp 198.18.0.9 02:00:00:00:00:09
runtime_kthreads 3
runtime_quantum_us 0
runtime_spinning_kthreads 1
log_level 6
disable_watchdog 1
runtime_priority lc
`

func TestConfig(t *testing.T) {
	file := configFile(t, fullConfig)
	got := mustParse(t, file, "--nic", "va", "--", "p")
	require.Equal(t, &Settings{
		Name: "p", Mode: ModeDirect, NIC: "va",
		Prefixes:   []netip.Prefix{netip.MustParsePrefix("198.18.0.2/24")},
		Gateways:   []netip.Addr{netip.MustParseAddr("198.18.0.1")},
		MTU:        1400,
		MAC:        net.HardwareAddr{2, 0, 0, 0, 0, 2},
		Neighbours: []config.Neighbour{{Addr: netip.MustParseAddr("198.18.0.9"), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}}},
		Spin:       spinOfConfig,
		Engine:     "auto", Boundary: "kill", Kthreads: 3, Argv: []string{"p"},
		Env: testHost.Environ, Cwd: "/work", Root: "/", UID: 7, GID: 8,
		LogFormat: "text", LogLevel: slog.LevelDebug,
		Cores:    Cores{Spinning: 1},
		Warnings: []string{"runtime_priority is not used: no uplink is shared without junctiond"},
	}, got)

	// Flags win, wherever they stand.
	got = mustParse(t, "--ip", "198.18.1.2/24", file, "--gateway", "198.18.1.1", "--nic", "va", "--mtu", "1300",
		"--kthreads", "1", "--quantum", "20us", "--spin", "0", "--log-level", "error", "--", "p")
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("198.18.1.2/24")}, got.Prefixes)
	require.Equal(t, []netip.Addr{netip.MustParseAddr("198.18.1.1")}, got.Gateways)
	require.Equal(t, 1300, got.MTU)
	require.Equal(t, 1, got.Kthreads)
	require.Equal(t, 20*time.Microsecond, got.Quantum)
	require.Zero(t, got.Spin)
	require.Equal(t, slog.LevelError, got.LogLevel)

	// A file's IPv4 gateway is no use to an instance with IPv6 alone.
	got = mustParse(t, file, "--ip", "fd00::2/64", "--nic", "va", "--", "p")
	require.Empty(t, got.Gateways)

	// Without a NIC the same file serves, and says so.
	got = mustParse(t, file, "--", "p")
	require.Equal(t, ModeNone, got.Mode)
	require.Empty(t, got.Prefixes)
	require.Contains(t, got.Warnings[1], "host_addr 198.18.0.2 is not used: without --nic IF")
}

func TestKthreadsAreBounded(t *testing.T) {
	got := mustParse(t, "--kthreads", "64", "--", "p")
	require.Equal(t, 4, got.Kthreads)
	require.Equal(t, []string{"64 kthreads asked for, 4 used: the host grants this process 4 processors"}, got.Warnings)
}

// Names of subcommands that cobra may add are programs and files like others.
func TestNamesOfSubcommands(t *testing.T) {
	for _, name := range []string{"completion", "help", "man", "__complete", "-h"} {
		require.Equal(t, []string{name, "bash"}, mustParse(t, "--", name, "bash").Argv)
	}
	file := configFile(t, "")
	require.Equal(t, []string{"completion"}, mustParse(t, file, "--", "completion").Argv)
}

func TestUsageErrors(t *testing.T) {
	file := configFile(t, fullConfig)
	direct := []string{"--nic", "va", "--ip", "198.18.0.2/24"}
	with := func(args ...string) []string { return append(append([]string{}, direct...), args...) }
	for _, tc := range []struct {
		args []string // without "-- p" if they end in ""
		want string   // in the message
	}{
		{[]string{""}, "no program given; write junction_run [CONFIG] [flags] -- PROGRAM"},
		{[]string{"--strace", "--", ""}, "no program"},
		{[]string{"ls", "-l", ""}, "unknown shorthand flag: 'l' in -l; see junction_run --help (the program's own flags go after --)"},
		{[]string{"ls", "x", ""}, `no -- before the program; write junction_run [CONFIG] [flags] -- ls x if "ls" is the program`},
		{[]string{file, "ls"}, `"ls": one configuration file at most can stand before --`},
		{[]string{"--check"}, `--check runs nothing; remove "p"`},
		{[]string{"--bogus"}, "unknown flag: --bogus; see junction_run --help"},
		{[]string{"--nic", ""}, "--nic needs a value"},
		{[]string{"--mode", "fast"}, `--mode "fast": accepted: direct, server, none`},
		{[]string{"--mode", "server", "--gateway", "198.18.0.1"}, `--gateway has no meaning with --mode server: junctiond decides; remove one of the two`},
		{[]string{"--engine", "kvm"}, `--engine "kvm": accepted: auto, inproc, systrap`},
		{[]string{"--driver", "dpdk"}, `--driver "dpdk": accepted: afxdp, tap`},
		{[]string{"--log", "xml"}, `--log "xml": accepted: text, json`},
		{[]string{"--log-level", "loud"}, `--log-level "loud": accepted: debug, info, warn, error`},
		{[]string{"--stats=xml"}, `--stats "xml": accepted: text, json`},
		{[]string{"--mode", "direct"}, "--mode direct needs a NIC: add --nic IF, or start junctiond; there are: va, vb"},
		{[]string{"--nic", "va"}, "--mode direct needs an address: add --ip CIDR"},
		{[]string{"--nic", "va:0"}, `--nic "va:0"`},
		{[]string{"--nic", "a/b"}, `--nic "a/b"`},
		{[]string{"--nic", "sixteencharacter"}, `--nic "sixteencharacter"`},
		{[]string{"--ip", "198.18.0.2/24"}, "--ip needs a NIC: add --nic IF"},
		{[]string{"--mode", "none", "--nic", "va"}, "--nic has no meaning with --mode none; remove one of the two"},
		{[]string{"--mode", "none", "--pcap", "f"}, "--pcap has no meaning with --mode none"},
		{[]string{"--ip", "198.18.0.2"}, `--ip "198.18.0.2": has no prefix length; write for example 198.18.0.2/24`},
		{[]string{"--ip", "fd00::2"}, `--ip "fd00::2": has no prefix length; write for example fd00::2/64`},
		{[]string{"--ip", "300.0.0.1/8"}, `--ip "300.0.0.1/8": accepted: an address with its prefix length`},
		{[]string{"--ip", "198.18.0.2/33"}, `--ip "198.18.0.2/33": accepted:`},
		{[]string{"--ip", "198.18.0.2/0"}, `--ip "198.18.0.2/0": prefix length 0`},
		{[]string{"--ip", "::ffff:198.18.0.2/120"}, `write it as IPv4`},
		{[]string{"--ip", "127.0.0.2/8"}, "127.0.0.2 is a loopback address"},
		{[]string{"--ip", "ff02::1/64"}, "ff02::1 is a multicast address"},
		{[]string{"--ip", "198.18.0.0/24"}, "is the address of the network itself; give a host's address in 198.18.0.0/24"},
		{[]string{"--ip", "198.18.0.127/25"}, "is the broadcast address of 198.18.0.0/25"},
		{with("--ip", "198.18.0.2/16"), `--ip "198.18.0.2/16": this address is given twice`},
		{with("--gateway", "198.18.0.0.1"), `--gateway "198.18.0.0.1": accepted: an address such as`},
		{with("--gateway", "fe80::1%va"), `--gateway "fe80::1%va": accepted: an address such as`},
		{with("--gateway", "0.0.0.0"), "0.0.0.0 is the unspecified address"},
		{with("--gateway", "198.18.0.1", "--gateway", "198.18.0.3"), "there is a gateway for this IP version already, 198.18.0.1"},
		{with("--gateway", "198.18.0.2"), "gateway 198.18.0.2 is the instance's own address"},
		{with("--gateway", "198.18.1.1"), "gateway 198.18.1.1 is in none of the instance's networks [198.18.0.2/24]"},
		{with("--gateway", "fe80::1"), "gateway fe80::1 is in none of the instance's networks"},
		{with("--mtu", "67"), `--mtu "67": accepted: a number from 68 to 65535`},
		{with("--mtu", "jumbo"), `--mtu "jumbo": accepted: a number`},
		{with("--ip", "fd00::2/64", "--mtu", "1279"), "MTU 1279 is too small for IPv6 address fd00::2: IPv6 needs 1280"},
		{with("--spin", "-1us"), `--spin "-1us": accepted: a duration from 0 to 1s`},
		{with("--spin", "50"), `--spin "50": accepted: a duration`},
		{[]string{"--quantum", "2h"}, `--quantum "2h": accepted: a duration from 0 to 1h0m0s, such as 100us`},
		{[]string{"--kthreads", "0"}, `--kthreads "0": accepted: a number from 1`},
		{[]string{"--env", "A"}, `--env "A": accepted: KEY=VALUE`},
		{[]string{"--env", "=x"}, `--env "=x": accepted: KEY=VALUE`},
		{[]string{"--name", "a b"}, `--name "a b": accepted: up to 63 letters`},
		{[]string{"--cwd", "tmp"}, `--cwd "tmp": accepted: an absolute path`},
		{[]string{"--rw="}, `--rw "": accepted: a path`},
		{[]string{"--rw", "x", "--rw", "/work/./x/"}, `--rw "/work/./x/": this directory is given twice`},
		{[]string{"--uid", "-1"}, `--uid "-1": accepted: a number from 0 to 4294967294`},
		{[]string{"--gid", "4294967295"}, `--gid "4294967295": accepted:`},
		{[]string{configFile(t, "host_adr 1")}, `x.config:1: unknown key "host_adr"; did you mean "host_addr"?`},
		{[]string{configFile(t, "host_addr 1.2.3")}, `x.config:1: host_addr: "1.2.3" is no IP address`},
		{[]string{configFile(t, "host_addr 198.18.0.255\nhost_netmask 255.255.255.0"), "--nic", "va"}, "host_addr 198.18.0.255/24: is the broadcast address"},
	} {
		args := append(tc.args, "--", "p")
		if last := len(tc.args) - 1; tc.args[last] == "" {
			args = tc.args[:last]
		}
		got, err := parse(testHost, args...)
		require.Nil(t, got, args)
		var usage *UsageError
		require.ErrorAs(t, err, &usage, "%q", args)
		require.Contains(t, err.Error(), tc.want, "%q", args)
		require.NotContains(t, OneLine(err), "\n")
	}
}

// A file that cannot be read is no mistake of usage.
func TestUnreadableConfig(t *testing.T) {
	for _, file := range []string{"/nonexistent", t.TempDir()} {
		_, err := parse(testHost, file, "--", "p")
		require.ErrorIs(t, err, config.ErrFile)
		var usage *UsageError
		require.NotErrorAs(t, err, &usage)
	}
}

func TestDeletedCwd(t *testing.T) {
	host := testHost
	host.Cwd = ""
	_, err := parse(host, "--rw", "x", "--", "p")
	require.ErrorContains(t, err, `--rw "x": is relative to a working directory that no longer exists`)
}

func TestNameOf(t *testing.T) {
	for program, want := range map[string]string{
		"/usr/bin/redis-server": "redis-server", "./a b": "a-b", "/": "junction", "...": "junction", "": "junction",
		"x/" + strings.Repeat("n", 80): strings.Repeat("n", 63), "python3.11": "python3.11",
	} {
		require.Equal(t, want, nameOf(program), program)
		require.Regexp(t, hostName, nameOf(program))
	}
}

func TestWantsJSON(t *testing.T) {
	for _, args := range []string{"--json", "x --bogus --json -- p", "--log=json -- p", "--log json -- p"} {
		require.True(t, WantsJSON(strings.Fields(args)), args)
	}
	for _, args := range []string{"", "-- p --json", "--log text -- p", "--log"} {
		require.False(t, WantsJSON(strings.Fields(args)), args)
	}
}

func TestCheckNeedsNoProgram(t *testing.T) {
	var got *Settings
	var json bool
	cmd := New(testHost, "v", Actions{Check: func(s *Settings, j bool) error { got, json = s, j; return nil }})
	cmd.SetArgs([]string{"--check", "--nic", "va:2", "--driver", "tap", "--mtu", "9000", "--json"})
	require.NoError(t, cmd.Execute())
	require.Equal(t, &Settings{NIC: "va", Queues: 2, Driver: "tap", MTU: 9000, Engine: "auto"}, got)
	require.True(t, json)
}

func TestCompletion(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"__complete --nic ", "va\nvb\n:4\n"},
		{"__complete --driver t", "afxdp\ntap\nafpacket\n:4\n"},
		{"completion bash", "# bash completion V2 for junction_run"},
	} {
		var out bytes.Buffer
		cmd := New(testHost, "v", Actions{})
		cmd.SetArgs(strings.Split(tc.args, " "))
		cmd.SetOut(&out)
		cmd.SetErr(new(bytes.Buffer))
		require.NoError(t, cmd.Execute(), tc.args)
		require.Contains(t, out.String(), tc.want)
	}
}

func TestVersionAndHelp(t *testing.T) {
	for flag, want := range map[string]string{"--version": "junction_run version v\n", "--help": "--gateway ADDR"} {
		var out bytes.Buffer
		cmd := New(testHost, "v", Actions{})
		cmd.SetArgs([]string{flag})
		cmd.SetOut(&out)
		require.NoError(t, cmd.Execute())
		require.Contains(t, out.String(), want)
	}
}

// TestLease: who decides on queues, a flag or the monitor.
func TestLease(t *testing.T) {
	monitored := testHost
	monitored.Socket = "/m"
	monitored.Monitor = func(path string) bool { return path == "/m" }
	for _, c := range []struct {
		host  Host
		flags []string
		mode  Mode
		lease bool
		wait  bool
	}{
		{monitored, nil, ModeServer, true, false},
		{monitored, []string{"--mode", "server"}, ModeServer, true, false},
		{monitored, []string{"--mode", "direct"}, ModeDirect, true, false},
		{monitored, []string{"--mode", "direct", "--wait"}, ModeDirect, true, true},
		{monitored, []string{"--mode", "direct", "--ip", "198.18.0.130"}, ModeDirect, true, false},
		{monitored, []string{"--mode", "direct", "--nic", "va", "--ip", "198.18.0.2/24"}, ModeDirect, false, false},
		{monitored, []string{"--nic", "va", "--ip", "198.18.0.2/24"}, ModeDirect, false, false},
		{monitored, []string{"--mode", "none"}, ModeNone, false, false},
		{testHost, nil, ModeNone, false, false},
		{testHost, []string{"--mode", "direct", "--socket", "/m"}, ModeDirect, true, false},
		{testHost, []string{"--mode", "server"}, ModeServer, true, false},
	} {
		got, err := parse(c.host, append(c.flags, "--", "p")...)
		require.NoError(t, err, c.flags)
		require.Equal(t, c.mode, got.Mode, c.flags)
		require.Equal(t, c.lease, got.Lease, c.flags)
		require.Equal(t, c.wait, got.Wait, c.flags)
	}
	for want, flags := range map[string][]string{
		"--wait is for --mode direct":                         {"--wait"},
		"--wait is for --mode direct with a queue":            {"--wait", "--nic", "va", "--ip", "198.18.0.2/24"},
		"--gateway has no meaning with --mode direct: juncti": {"--mode", "direct", "--gateway", "198.18.0.1"},
		"--driver has no meaning with --mode direct: junctio": {"--mode", "direct", "--driver", "tap"},
	} {
		_, err := parse(monitored, append(flags, "--", "p")...)
		require.ErrorContains(t, err, want)
	}
}

// TestMonitorExpected: whoever might count on a monitor is told that none answers.
func TestMonitorExpected(t *testing.T) {
	host := testHost
	host.Socket = "/m"
	host.Expected = func(path string) bool { return path == "/m" }
	for _, c := range []struct {
		answers bool
		flags   []string
		warned  bool
	}{
		{false, nil, true},
		{false, []string{"--mode", "none"}, false},
		{false, []string{"--nic", "va", "--ip", "198.18.0.2/24"}, false},
		{true, nil, false},
	} {
		host.Monitor = func(string) bool { return c.answers }
		got, err := parse(host, append(c.flags, "--", "p")...)
		require.NoError(t, err)
		require.Equal(t, c.warned, slices.ContainsFunc(got.Warnings, func(w string) bool {
			return strings.HasPrefix(w, "no junctiond answers at /m")
		}), "%+v", c)
	}
}

// TestCoresOfConfig: what is told to the scheduler of cores, which is junctiond's.
func TestCoresOfConfig(t *testing.T) {
	file := configFile(t, "runtime_kthreads 2\nruntime_guaranteed_kthreads 1\nruntime_priority be\nruntime_qdelay_us 25\n")
	got := mustParse(t, file, "--mode", "server", "--", "p")
	require.Equal(t, Cores{Guaranteed: 1, Delay: 25 * time.Microsecond}, got.Cores)
	require.Empty(t, got.Warnings)
	require.Len(t, mustParse(t, file, "--mode", "none", "--", "p").Warnings, 3)
	require.False(t, mustParse(t, "--mode", "server", "--", "p").Cores.LatencyCritical, "as in Caladan")
	require.True(t, mustParse(t, "--mode", "server", "--priority", "lc", "--", "p").Cores.LatencyCritical)
}

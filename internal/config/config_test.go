package config

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// everyKey sets each key once.
const everyKey = `# every key
host_addr 198.18.0.2
host_netmask 255.255.255.0
host_gateway 198.18.0.1
  host_mtu 0x2328   # 9000
host_mac 2:0:0:0:0:a
static_arp 198.18.0.3 02-00-00-00-00-03
static_arp 198.18.0.4 020000000004

runtime_kthreads 010
runtime_spinning_kthreads 1
runtime_guaranteed_kthreads 3
runtime_priority be
runtime_quantum_us 100
runtime_qdelay_us 10
runtime_ht_punish_us 0
preferred_socket 1
log_level 3
disable_watchdog 1
enable_directpath fs
directpath_pci 0000:01:00.0
directpath_strided_rx 1
enable_transparent_hugepages 1
enable_storage 0`

func set[T any](v T) Value[T] { return Value[T]{V: v, Set: true} }

func TestParseEveryKey(t *testing.T) {
	got, warnings, err := Parse("f", []byte(everyKey))
	require.NoError(t, err)
	require.Equal(t, &Config{
		HostAddr:    set(netip.MustParseAddr("198.18.0.2")),
		HostNetmask: set(24),
		HostGateway: set(netip.MustParseAddr("198.18.0.1")),
		HostMTU:     set(9000),
		HostMAC:     set(net.HardwareAddr{2, 0, 0, 0, 0, 10}),
		StaticARP: []Neighbour{
			{netip.MustParseAddr("198.18.0.3"), net.HardwareAddr{2, 0, 0, 0, 0, 3}},
			{netip.MustParseAddr("198.18.0.4"), net.HardwareAddr{2, 0, 0, 0, 0, 4}},
		},
		Kthreads:             set(10),
		SpinningKthreads:     set(1),
		GuaranteedKthreads:   set(3),
		Priority:             set(BestEffort),
		Quantum:              set(100 * time.Microsecond),
		QDelay:               set(10 * time.Microsecond),
		HTPunish:             set(time.Duration(0)),
		PreferredSocket:      set(1),
		LogLevel:             set(slog.LevelWarn),
		DisableWatchdog:      set(true),
		Directpath:           set(DirectpathFlows),
		DirectpathPCI:        set("0000:01:00.0"),
		DirectpathStrided:    set(true),
		TransparentHugepages: set(true),
		Storage:              set(false),
	}, got)

	var ignored []string
	for _, w := range warnings {
		ignored = append(ignored, w.Key)
		require.NotEmpty(t, w.Reason)
		require.Equal(t, "f", w.File)
	}
	require.Equal(t, []string{"runtime_ht_punish_us", "preferred_socket", "enable_directpath", "directpath_pci", "directpath_strided_rx",
		"enable_transparent_hugepages", "enable_storage"}, ignored)
	require.Equal(t, "f:16: runtime_ht_punish_us is ignored: this version does not tell hyperthreads of one core from cores", warnings[0].String())
	for k := range keys {
		require.Contains(t, everyKey, k, "a key that this test misses")
	}
}

func TestParseNothing(t *testing.T) {
	for _, text := range []string{"", "\n\n", "# only\n   # comments", "\ufeff\r\n"} {
		got, warnings, err := Parse("f", []byte(text))
		require.NoError(t, err)
		require.Empty(t, warnings)
		require.Equal(t, &Config{}, got)
	}
}

func TestOr(t *testing.T) {
	require.Equal(t, 3, set(3).Or(4))
	require.Equal(t, 0, set(0).Or(4))
	require.Equal(t, 4, Value[int]{V: 3}.Or(4))
}

func TestParseErrors(t *testing.T) {
	for _, tc := range []struct {
		text string
		kind error
		want string // the whole message, or its beginning when it ends in "..."
	}{
		{"\nhost_adr 1.2.3.4", ErrUnknownKey, `f:2: unknown key "host_adr"; did you mean "host_addr"?`},
		{"HOST_MTU 1500", ErrUnknownKey, `f:1: unknown key "HOST_MTU"; accepted: [directpath_pci ...`},
		{"runtime_kthread 1", ErrUnknownKey, `f:1: unknown key "runtime_kthread"; did you mean "runtime_kthreads"?`},
		{"x\x00y 1", ErrUnknownKey, `f:1: unknown key "x\x00y"; accepted: ...`},
		{"zzzzzzzzzzzzzzzzzz 1", ErrUnknownKey, `f:1: unknown key "zzzzzzzzzzzzzzzzzz"; accepted: [directpath_pci ...`},
		{"host_addr", ErrMissing, `f:1: host_addr: missing value; accepted: an IPv4 address such as 192.168.1.2`},
		{"host_addr # 1.2.3.4", ErrMissing, `f:1: host_addr: missing value; ...`},
		{"static_arp 198.18.0.3", ErrMissing, `f:1: static_arp: missing value; accepted: an IPv4 address and a MAC address ...`},
		{"host_addr 198.18.0.2", ErrMissing, `f:1: host_addr: host_netmask is missing; ...`},
		{"host_mtu 1500 1400", ErrSyntax, `f:1: host_mtu: unexpected "1400" after the value; accepted: a number from 68 to 9000`},
		{"host_mtu 1500\nhost_mtu 1500", ErrDuplicate, `f:2: host_mtu: "host_mtu" is already set in line 1; remove one of the two`},
		{"static_arp 198.18.0.3 020000000003\nstatic_arp 198.18.0.3 020000000004", ErrDuplicate,
			`f:2: static_arp: "static_arp 198.18.0.3" is already set in line 1; ...`},
		{"host_addr 300.1.1.1", ErrValue, `f:1: host_addr: "300.1.1.1" is no IP address; accepted: an IPv4 address ...`},
		{"host_addr fd00::1", ErrValue, `f:1: host_addr: fd00::1 is no IPv4 address (give IPv6 ones with --ip and --gateway); ...`},
		{"host_addr 127.0.0.1", ErrValue, `f:1: host_addr: 127.0.0.1 is a loopback address; ...`},
		{"host_addr 0.0.0.0", ErrValue, `f:1: host_addr: 0.0.0.0 is the unspecified address; ...`},
		{"host_gateway 224.0.0.1", ErrValue, `f:1: host_gateway: 224.0.0.1 is a multicast address; ...`},
		{"host_gateway 255.255.255.255", ErrValue, `f:1: host_gateway: 255.255.255.255 is the broadcast address; ...`},
		{"host_netmask 255.0.255.0", ErrValue, `f:1: host_netmask: 255.0.255.0 has its ones not all in front; ...`},
		{"host_netmask 0.0.0.0", ErrValue, `f:1: host_netmask: 0.0.0.0 has its ones ...`},
		{"host_netmask 24", ErrValue, `f:1: host_netmask: "24" is no IPv4 netmask; accepted: an IPv4 netmask such as 255.255.255.0`},
		{"host_mtu 67", ErrValue, `f:1: host_mtu: 67 is out of range; accepted: a number from 68 to 9000`},
		{"host_mtu 9001", ErrValue, `f:1: host_mtu: 9001 is out of range; ...`},
		{"host_mtu 99999999999999999999", ErrValue, `f:1: host_mtu: 99999999999999999999 is out of range; ...`},
		{"host_mtu 1.5k", ErrValue, `f:1: host_mtu: "1.5k" is no number; ...`},
		{"host_mtu 0x", ErrValue, `f:1: host_mtu: "0x" is no number; ...`},
		{"host_mtu 0x-5dc", ErrValue, `f:1: host_mtu: "0x-5dc" is no number; ...`},
		{"host_mtu +1500", ErrValue, `f:1: host_mtu: "+1500" is no number; ...`},
		{"host_mac 01:00:00:00:00:01", ErrValue, `f:1: host_mac: 01:00:00:00:00:01 is a multicast MAC address; ...`},
		{"host_mac 00:00:00:00:00:00", ErrValue, `f:1: host_mac: 00:00:00:00:00:00 is no host's MAC address; ...`},
		{"host_mac 02:00:00:00:00", ErrValue, `f:1: host_mac: "02:00:00:00:00" is no MAC address; ...`},
		{"host_mac 002:00:00:00:00:01", ErrValue, `f:1: host_mac: "002:00:00:00:00:01" is no MAC address; ...`},
		{"host_mac 02:00:00:00:00:0g", ErrValue, `f:1: host_mac: "02:00:00:00:00:0g" is no MAC address; ...`},
		{"static_arp 198.18.0.3 x", ErrValue, `f:1: static_arp: "x" is no MAC address; ...`},
		{"static_arp x 020000000003", ErrValue, `f:1: static_arp: "x" is no IP address; ...`},
		{"runtime_kthreads 0", ErrValue, `f:1: runtime_kthreads: 0 is out of range; accepted: a number from 1 to 4096`},
		{"runtime_kthreads 2\nruntime_guaranteed_kthreads 3", ErrValue, `f:2: runtime_guaranteed_kthreads: 3 is more than runtime_kthreads, 2`},
		{"runtime_priority high", ErrValue, `f:1: runtime_priority: "high" is none of these; accepted: lc (latency critical) or be (best effort)`},
		{"runtime_quantum_us -1", ErrValue, `f:1: runtime_quantum_us: -1 is out of range; accepted: microseconds from 0 to 3600000000`},
		{"log_level 7", ErrValue, `f:1: log_level: 7 is out of range; accepted: a number from 0 (emergencies only) to 6 (debug)`},
		{"disable_watchdog maybe", ErrValue, `f:1: disable_watchdog: "maybe" is neither; accepted: 1 (on) or 0 (off)`},
		{"enable_directpath 2", ErrValue, `f:1: enable_directpath: "2" is none of these; accepted: 0, 1, fs, qs or ext`},
		{"directpath_pci eth0", ErrValue, `f:1: directpath_pci: "eth0" is no PCI address; ...`},
		{"host_mtu \xff", ErrSyntax, "f:1: is not UTF-8 text; give a file of `key value` lines"},
		{"#" + strings.Repeat("x", maxLine), ErrSyntax, `f:1: line of 4097 bytes; at most 4096 are accepted`},
	} {
		cfg, warnings, err := Parse("f", []byte(tc.text))
		require.Nil(t, cfg, tc.text)
		require.Nil(t, warnings, tc.text)
		require.ErrorIs(t, err, tc.kind, tc.text)
		want, prefix := strings.CutSuffix(tc.want, "...")
		if prefix {
			require.True(t, strings.HasPrefix(err.Error(), want), "got %s\nwant %s", err, want)
		} else {
			require.EqualError(t, err, want)
		}
	}
}

func TestLogLevels(t *testing.T) {
	want := []slog.Level{slog.LevelError, slog.LevelError, slog.LevelError, slog.LevelWarn, slog.LevelInfo, slog.LevelInfo, slog.LevelDebug}
	for n, level := range want {
		got, err := parseLevel(string(rune('0' + n)))
		require.NoError(t, err)
		require.Equal(t, level, got)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	good := write("good", "host_mtu 1500\r\n")
	cfg, _, err := Load(good)
	require.NoError(t, err)
	require.Equal(t, set(1500), cfg.HostMTU)

	bad := write("bad", "\nhost_mtu 1\n")
	_, _, err = Load(bad)
	require.EqualError(t, err, bad+":2: host_mtu: 1 is out of range; accepted: a number from 68 to 9000")

	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	for path, want := range map[string]string{
		dir:           dir + ": is a directory; give a file of `key value` lines",
		fifo:          fifo + ": is no regular file; give a file of `key value` lines",
		"/dev/zero":   "/dev/zero: is no regular file; give a file of `key value` lines",
		dir + "/none": dir + "/none: cannot open the configuration file: no such file or directory",
		good + "/x":   good + "/x: cannot open the configuration file: not a directory",
		write("big", strings.Repeat("\n", 2<<20)): dir + "/big: larger than 1048576 bytes; that is no configuration file",
	} {
		_, _, err := Load(path)
		require.ErrorIs(t, err, ErrFile)
		require.EqualError(t, err, want)
	}
}

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "abc", 0}, {"kitten", "sitting", 3}, {"host_adr", "host_addr", 1}, {"a", "abcdefghijkl", 9}} {
		require.Equal(t, tc.want, distance(tc.a, tc.b, 9), "%q %q", tc.a, tc.b)
		require.Equal(t, tc.want, distance(tc.b, tc.a, 9), "%q %q", tc.b, tc.a)
	}
}

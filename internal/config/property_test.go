package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// format writes c in the file format, in any order that shuffle gives its lines.
func format(c *Config, shuffle func([]string) []string) string {
	var lines []string
	add := func(set bool, key string, value ...any) {
		if set {
			lines = append(lines, key+" "+strings.TrimSpace(fmt.Sprintln(value...)))
		}
	}
	number := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	add(c.HostAddr.Set, "host_addr", c.HostAddr.V)
	add(c.HostNetmask.Set, "host_netmask", net.IP(net.CIDRMask(c.HostNetmask.V, 32)))
	add(c.HostGateway.Set, "host_gateway", c.HostGateway.V)
	add(c.HostMTU.Set, "host_mtu", c.HostMTU.V)
	add(c.HostMAC.Set, "host_mac", c.HostMAC.V)
	for _, n := range c.StaticARP {
		add(true, "static_arp", n.Addr, n.MAC)
	}
	add(c.Kthreads.Set, "runtime_kthreads", c.Kthreads.V)
	add(c.SpinningKthreads.Set, "runtime_spinning_kthreads", c.SpinningKthreads.V)
	add(c.GuaranteedKthreads.Set, "runtime_guaranteed_kthreads", c.GuaranteedKthreads.V)
	add(c.Priority.Set, "runtime_priority", c.Priority.V)
	add(c.Quantum.Set, "runtime_quantum_us", c.Quantum.V.Microseconds())
	add(c.QDelay.Set, "runtime_qdelay_us", c.QDelay.V.Microseconds())
	add(c.HTPunish.Set, "runtime_ht_punish_us", c.HTPunish.V.Microseconds())
	add(c.PreferredSocket.Set, "preferred_socket", c.PreferredSocket.V)
	add(c.LogLevel.Set, "log_level", map[slog.Level]int{slog.LevelError: 2, slog.LevelWarn: 3, slog.LevelInfo: 5, slog.LevelDebug: 6}[c.LogLevel.V])
	add(c.DisableWatchdog.Set, "disable_watchdog", number(c.DisableWatchdog.V))
	add(c.Directpath.Set, "enable_directpath", c.Directpath.V)
	add(c.DirectpathPCI.Set, "directpath_pci", c.DirectpathPCI.V)
	add(c.DirectpathStrided.Set, "directpath_strided_rx", number(c.DirectpathStrided.V))
	add(c.TransparentHugepages.Set, "enable_transparent_hugepages", number(c.TransparentHugepages.V))
	add(c.Storage.Set, "enable_storage", number(c.Storage.V))
	return strings.Join(shuffle(lines), "\n")
}

func maybe[T any](t *rapid.T, label string, g *rapid.Generator[T]) Value[T] {
	if !rapid.Bool().Draw(t, label+" set") {
		return Value[T]{}
	}
	return set(g.Draw(t, label))
}

func genAddr() *rapid.Generator[netip.Addr] {
	return rapid.Custom(func(t *rapid.T) netip.Addr {
		return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "addr")))
	}).Filter(func(a netip.Addr) bool { return CheckUnicast(a) == nil })
}

func genMAC() *rapid.Generator[net.HardwareAddr] {
	return rapid.Custom(func(t *rapid.T) net.HardwareAddr {
		mac := net.HardwareAddr(rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac"))
		mac[0] = mac[0]&^1 | 2
		return mac
	})
}

func genConfig(t *rapid.T) *Config {
	micros := rapid.Map(rapid.Int64Range(0, maxMicros), func(n int64) time.Duration { return time.Duration(n) * time.Microsecond })
	c := &Config{
		HostNetmask:          maybe(t, "mask", rapid.IntRange(1, 32)),
		HostGateway:          maybe(t, "gateway", genAddr()),
		HostMTU:              maybe(t, "mtu", rapid.IntRange(MinMTU, MaxMTU)),
		HostMAC:              maybe(t, "mac", genMAC()),
		Kthreads:             maybe(t, "kthreads", rapid.IntRange(1, maxKthreads)),
		SpinningKthreads:     maybe(t, "spinning", rapid.IntRange(0, maxKthreads)),
		Priority:             maybe(t, "priority", rapid.SampledFrom([]Priority{LatencyCritical, BestEffort})),
		Quantum:              maybe(t, "quantum", micros),
		QDelay:               maybe(t, "qdelay", micros),
		HTPunish:             maybe(t, "punish", micros),
		PreferredSocket:      maybe(t, "socket", rapid.IntRange(0, maxNodes-1)),
		LogLevel:             maybe(t, "level", rapid.SampledFrom([]slog.Level{slog.LevelError, slog.LevelWarn, slog.LevelInfo, slog.LevelDebug})),
		DisableWatchdog:      maybe(t, "watchdog", rapid.Bool()),
		Directpath:           maybe(t, "directpath", rapid.SampledFrom([]Directpath{"0", "1", "fs", "qs", "ext"})),
		DirectpathPCI:        maybe(t, "pci", rapid.StringMatching(`[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]`)),
		DirectpathStrided:    maybe(t, "strided", rapid.Bool()),
		TransparentHugepages: maybe(t, "thp", rapid.Bool()),
		Storage:              maybe(t, "storage", rapid.Bool()),
	}
	if c.HostNetmask.Set {
		c.HostAddr = maybe(t, "addr", genAddr())
	}
	if c.Kthreads.Set {
		c.GuaranteedKthreads = maybe(t, "guaranteed", rapid.IntRange(0, c.Kthreads.V))
	}
	for _, a := range rapid.SliceOfNDistinct(genAddr(), 0, 4, rapid.ID[netip.Addr]).Draw(t, "arp") {
		c.StaticARP = append(c.StaticARP, Neighbour{Addr: a, MAC: genMAC().Draw(t, "arp mac")})
	}
	return c
}

// Whatever is written is read back, whatever the order of the lines.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genConfig(t)
		text := format(want, func(lines []string) []string {
			if len(lines) == 0 {
				return nil
			}
			return rapid.Permutation(lines).Draw(t, "lines")
		})
		got, _, err := Parse("f", []byte(text))
		require.NoError(t, err, text)
		require.ElementsMatch(t, want.StaticARP, got.StaticARP)
		got.StaticARP = want.StaticARP
		require.Equal(t, want, got, text)
	})
}

// Any bytes give either settings that can be written and read back, or an
// Error that fits on one line and names the file.
func FuzzParse(f *testing.F) {
	f.Add([]byte(everyKey))
	samples, err := os.ReadDir("testdata/samples")
	require.NoError(f, err)
	for _, s := range samples {
		text, err := os.ReadFile("testdata/samples/" + s.Name())
		require.NoError(f, err)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, warnings, err := Parse("f", text)
		if err != nil {
			var e *Error
			require.True(t, errors.As(err, &e))
			require.NotNil(t, e.Kind)
			require.True(t, strings.HasPrefix(err.Error(), "f:"), err)
			require.NotContains(t, err.Error(), "\n")
			require.LessOrEqual(t, e.Line, strings.Count(string(text), "\n")+1)
			return
		}
		require.LessOrEqual(t, len(warnings), len(keys))
		again, _, err := Parse("g", []byte(format(c, func(l []string) []string { return l })))
		require.NoError(t, err)
		require.Equal(t, c, again)
	})
}

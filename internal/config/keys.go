package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// MinMTU and MaxMTU bound host_mtu, in bytes. The lower bound is IPv4's (RFC
// 791), the upper one Caladan's and that of usual jumbo frames.
const (
	MinMTU = 68
	MaxMTU = 9000
)

const (
	maxKthreads = 4096          // more than any host has
	maxMicros   = 3_600_000_000 // an hour, for the *_us keys
	maxNodes    = 1024          // MAX_NUMNODES of Linux
)

// key describes a key of the file.
type key struct {
	values  int                           // how many values it takes; 0 means 1
	accepts string                        // those values, for messages
	set     func(*Config, []string) error // parses and stores them
	ignored string                        // why the key has no effect yet; empty if it has one
}

// What the warnings say.
const (
	noSiblings  = "this version does not tell hyperthreads of one core from cores"
	noPlacement = "this version leaves memory placement to the kernel"
	noStorage   = "this version has no storage path of its own; files go through the host's kernel"
	byFlags     = "NIC queues are chosen by --mode, --nic and --driver"
)

// one makes a key with one value.
func one[T any](accepts string, parse func(string) (T, error), field func(*Config) *Value[T]) key {
	return key{accepts: accepts, set: func(c *Config, values []string) error {
		v, err := parse(values[0])
		if err != nil {
			return err
		}
		*field(c) = Value[T]{V: v, Set: true}
		return nil
	}}
}

// because marks a key as having no effect yet.
func (k key) because(reason string) key {
	k.ignored = reason
	return k
}

func count(lo, hi int, field func(*Config) *Value[int]) key {
	return one(fmt.Sprintf("a number from %d to %d", lo, hi), integer(lo, hi), field)
}

func micros(field func(*Config) *Value[time.Duration]) key {
	return one(fmt.Sprintf("microseconds from 0 to %d", maxMicros), parseMicros, field)
}

func toggle(field func(*Config) *Value[bool]) key {
	return one("1 (on) or 0 (off)", parseBool, field)
}

// keys are those of Caladan's runtime/cfg.c and of the handlers that its other
// files register.
var keys = map[string]key{
	"host_addr": one("an IPv4 address such as 192.168.1.2", parseHost,
		func(c *Config) *Value[netip.Addr] { return &c.HostAddr }),
	"host_netmask": one("an IPv4 netmask such as 255.255.255.0", parseNetmask,
		func(c *Config) *Value[int] { return &c.HostNetmask }),
	"host_gateway": one("an IPv4 address such as 192.168.1.1", parseHost,
		func(c *Config) *Value[netip.Addr] { return &c.HostGateway }),
	"host_mtu": count(MinMTU, MaxMTU, func(c *Config) *Value[int] { return &c.HostMTU }),
	"host_mac": one("a unicast MAC address such as 02:00:00:00:00:01", ParseMAC,
		func(c *Config) *Value[net.HardwareAddr] { return &c.HostMAC }),
	"static_arp": {values: 2, accepts: "an IPv4 address and a MAC address such as 192.168.1.3 02:00:00:00:00:03", set: addNeighbour},

	"runtime_kthreads":          count(1, maxKthreads, func(c *Config) *Value[int] { return &c.Kthreads }),
	"runtime_spinning_kthreads": count(0, maxKthreads, func(c *Config) *Value[int] { return &c.SpinningKthreads }),
	"runtime_guaranteed_kthreads": count(0, maxKthreads,
		func(c *Config) *Value[int] { return &c.GuaranteedKthreads }),
	"runtime_priority": one("lc (latency critical) or be (best effort)", oneOf(LatencyCritical, BestEffort),
		func(c *Config) *Value[Priority] { return &c.Priority }),
	"runtime_quantum_us":   micros(func(c *Config) *Value[time.Duration] { return &c.Quantum }),
	"runtime_qdelay_us":    micros(func(c *Config) *Value[time.Duration] { return &c.QDelay }),
	"runtime_ht_punish_us": micros(func(c *Config) *Value[time.Duration] { return &c.HTPunish }).because(noSiblings),
	"preferred_socket":     count(0, maxNodes-1, func(c *Config) *Value[int] { return &c.PreferredSocket }).because(noPlacement),

	"log_level": one("a number from 0 (emergencies only) to 6 (debug)", parseLevel,
		func(c *Config) *Value[slog.Level] { return &c.LogLevel }),
	"disable_watchdog": toggle(func(c *Config) *Value[bool] { return &c.DisableWatchdog }),
	"enable_directpath": one("0, 1, fs, qs or ext",
		oneOf(DirectpathOff, DirectpathAny, DirectpathFlows, DirectpathQueues, DirectpathExternal),
		func(c *Config) *Value[Directpath] { return &c.Directpath }).because(byFlags),
	"directpath_pci": one("a PCI address such as 0000:01:00.0", parsePCI,
		func(c *Config) *Value[string] { return &c.DirectpathPCI }).because(byFlags),
	"directpath_strided_rx":        toggle(func(c *Config) *Value[bool] { return &c.DirectpathStrided }).because(byFlags),
	"enable_transparent_hugepages": toggle(func(c *Config) *Value[bool] { return &c.TransparentHugepages }).because(noPlacement),
	"enable_storage":               toggle(func(c *Config) *Value[bool] { return &c.Storage }).because(noStorage),
}

package config

import (
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Value is a setting that may be absent from the file.
type Value[T any] struct {
	V   T    // the value; T's zero value when not Set
	Set bool // whether the file has the key
}

// Or returns the value, or def when the file does not have the key.
func (v Value[T]) Or(def T) T {
	if v.Set {
		return v.V
	}
	return def
}

// Priority is the scheduling class of an instance.
type Priority string

// The classes of runtime_priority.
const (
	LatencyCritical Priority = "lc"
	BestEffort      Priority = "be"
)

// Directpath is a value of enable_directpath: whether, and by which steering,
// the instance is to have NIC queues of its own.
type Directpath string

// The values of enable_directpath.
const (
	DirectpathOff      Directpath = "0"
	DirectpathAny      Directpath = "1"
	DirectpathFlows    Directpath = "fs"
	DirectpathQueues   Directpath = "qs"
	DirectpathExternal Directpath = "ext"
)

// Neighbour is one static_arp entry.
type Neighbour struct {
	Addr netip.Addr       // IPv4
	MAC  net.HardwareAddr // 6 bytes, unicast
}

// Config is the content of a file. The comment of each field names its key.
type Config struct {
	HostAddr    Value[netip.Addr]       // host_addr: the instance's IPv4 address
	HostNetmask Value[int]              // host_netmask: as a prefix length, 1 to 32
	HostGateway Value[netip.Addr]       // host_gateway: IPv4
	HostMTU     Value[int]              // host_mtu: bytes of an IP packet
	HostMAC     Value[net.HardwareAddr] // host_mac: 6 bytes, unicast
	StaticARP   []Neighbour             // static_arp, in file order

	Kthreads           Value[int]           // runtime_kthreads: most threads of programs that execute at once
	SpinningKthreads   Value[int]           // runtime_spinning_kthreads: how many of them always want a core
	GuaranteedKthreads Value[int]           // runtime_guaranteed_kthreads: how many get one whenever they want
	Priority           Value[Priority]      // runtime_priority: who yields to whom
	Quantum            Value[time.Duration] // runtime_quantum_us; 0: no preemption
	QDelay             Value[time.Duration] // runtime_qdelay_us: wait that is congestion; 0: as the policy has it
	HTPunish           Value[time.Duration] // runtime_ht_punish_us
	PreferredSocket    Value[int]           // preferred_socket: NUMA node

	LogLevel             Value[slog.Level] // log_level, from Caladan's 0 (emergency) to 6 (debug)
	DisableWatchdog      Value[bool]       // disable_watchdog
	Directpath           Value[Directpath] // enable_directpath
	DirectpathPCI        Value[string]     // directpath_pci
	DirectpathStrided    Value[bool]       // directpath_strided_rx
	TransparentHugepages Value[bool]       // enable_transparent_hugepages
	Storage              Value[bool]       // enable_storage
}

// Package cli is the command line of junction_run: flags and configuration
// file in, checked settings out. It opens nothing but the configuration file.
package cli

import (
	"log/slog"
	"net"
	"net/netip"
	"time"

	"junction/internal/config"
)

// Mode is how an instance reaches the network.
type Mode string

const (
	// ModeDirect: over NIC queues of its own.
	ModeDirect Mode = "direct"
	// ModeServer: through the network server, over packet rings.
	ModeServer Mode = "server"
	// ModeNone: not at all; the instance has a loopback interface only.
	ModeNone Mode = "none"
)

// Settings is what an instance is to be, from flags, configuration file and
// defaults, checked as far as that is possible without opening anything.
type Settings struct {
	Name string // also the host name that the program sees
	Mode Mode

	NIC        string // with ModeDirect and no lease: the host's NIC
	Queues     int    // of the NIC; 0: all
	Driver     string // afxdp, tap, or empty for the best that the NIC allows
	NoOutlet   bool   // direct.Options.NoOutlet
	Prefixes   []netip.Prefix
	Gateways   []netip.Addr // at most one of each IP version
	MTU        int          // bytes; 0: the NIC's
	MAC        net.HardwareAddr
	Neighbours []config.Neighbour
	Spin       time.Duration // how long the receive loop looks for frames before it sleeps
	Pcap       string        // file for captured packets, or empty

	// Lease: the monitor gives addresses and queues. Always so with ModeServer; with
	// ModeDirect the instance is switched before its program starts.
	Lease     bool
	Socket    string       // the monitor's
	Dedicated []netip.Addr // with a lease: addresses of its own; none: the shared ones
	// Priority is the part of the uplink that the instance begins with, with a lease.
	Priority config.Priority
	Wait     bool // with a lease and ModeDirect: until a queue is free

	Engine    string        // auto, systrap or inproc
	Boundary  string        // kill, trap or off
	Kthreads  int           // most processors used at once; 0: all that the host grants
	Quantum   time.Duration // 0: until a system call
	Cores     Cores
	Watchdog  bool
	Moves     string // for tests: always, soon, never, or empty for as it is worth it
	Argv      []string
	Env       []string // KEY=VALUE
	Cwd       string   // absolute, in the instance
	UID, GID  uint32
	Root      string   // absolute, on the host
	ReadWrite []string // absolute, on the host

	Strace    bool
	LogFormat string // text or json
	LogLevel  slog.Level
	Stats     string // text or json, or empty for none

	// Warnings are settings that have no effect, to be logged.
	Warnings []string
}

// Cores is what an instance tells the scheduler of cores, if there is one.
type Cores struct {
	LatencyCritical bool          // of that class, else best effort
	Guaranteed      int           // kthreads that have a core whenever they want one
	Spinning        int           // kthreads that always want one
	Delay           time.Duration // for which a thread may wait for a kthread; 0: as the policy has it
}

// Host is what the command line needs to know of its surroundings.
type Host struct {
	Environ  []string
	Cwd      string // absolute; empty if it cannot be told
	UID, GID uint32
	CPUs     int // that this process may use
	// NICs lists what --nic accepts, for messages and completion.
	NICs func() []string
	// Socket is where the monitor listens unless a flag says otherwise, and
	// Monitor tells whether one answers at a path.
	Socket  string
	Monitor func(path string) bool
	// Expected tells whether one should answer there: it was named by the
	// environment, or has died. nil: none is.
	Expected func(path string) bool
}

// Actions are what the command line leads to.
type Actions struct {
	// Run runs an instance until its program ends.
	Run func(*Settings) error
	// Check prints what the host offers. Of the settings only NIC, Queues,
	// Driver, MTU and Engine are set, the first four if their flags are.
	Check func(s *Settings, json bool) error
}

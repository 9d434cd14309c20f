package cli

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"junction/internal/config"
)

// enums are the flags that take one of a few words, which completion offers.
var enums = map[string][]string{
	"mode":      {"direct", "server", "none"},
	"driver":    {"afxdp", "tap", "afpacket"},
	"priority":  {string(config.LatencyCritical), string(config.BestEffort)},
	"engine":    {"auto", "inproc", "systrap"},
	"moves":     {"always", "soon", "never"},
	"boundary":  {"kill", "trap", "off"},
	"log":       {"text", "json"},
	"log-level": {"debug", "info", "warn", "error"},
	"stats":     {"text", "json"},
}

// flags holds what the flags say; each is checked by itself while it is parsed.
type flags struct {
	set *pflag.FlagSet

	mode, nic, driver string
	socket            string
	queues            int
	wait, noOutlet    bool
	prefixes          []netip.Prefix
	bare              []netip.Addr // of --ip, without prefix length
	gateways          []netip.Addr
	mtu               int
	spin              time.Duration
	pcap              string

	name, priority              string
	engine, boundary, cwd, root string
	kthreads                    int
	quantum                     time.Duration
	moves                       string
	env, rw                     []string
	uid, gid                    uint32

	strace, check, json bool
	logFormat           string
	logLevel            slog.Level
	stats               string
}

// register defines the flags, in groups as in the help.
func (f *flags) register(fs *pflag.FlagSet) {
	f.set = fs
	fs.SortFlags = false
	f.registerNetwork(fs)
	f.registerProgram(fs)
	f.registerOutput(fs)
}

func (f *flags) registerNetwork(fs *pflag.FlagSet) {
	word(fs, &f.mode, "mode", "WORD", "direct (NIC queues of its own: those of --nic, else one that junctiond gives), server (through the network server of junctiond) or none (loopback only); default: direct with --nic, else server if junctiond answers, else none")
	fs.BoolVar(&f.wait, "wait", false, "with --mode direct and junctiond: wait until a queue is free")
	option(fs, "socket", "PATH", "junctiond's socket; default: JUNCTION_SOCKET of the environment, or /run/junction/monitor.sock", path(&f.socket))
	option(fs, "nic", "IF[:QUEUES]", "NIC to take queues of, and how many; default: all", f.setNIC)
	word(fs, &f.driver, "driver", "WORD", "afxdp, tap, or as the last resort afpacket; default: the better of the first two that the NIC allows")
	fs.BoolVar(&f.noOutlet, "no-outlet", false, "with AF_XDP: cut what is larger than the MTU, and make its checksums, in the instance, instead of sending it whole through a TAP that passes it on to the NIC")
	option(fs, "ip", "CIDR", "address with its prefix length, IPv4 or IPv6; repeatable; with junctiond: an address of one's own instead of the shared one", f.addPrefix)
	option(fs, "gateway", "ADDR", "default router; repeatable, one for each IP version", f.addGateway)
	word(fs, &f.priority, "priority", "WORD", "with junctiond: lc (latency critical: eight times the part of a busy uplink, and in an enclave cores before others) or be (best effort); default: be")
	option(fs, "mtu", "BYTES", "largest IP packet; default: the NIC's", number(&f.mtu, minMTU, maxMTU))
	option(fs, "spin", "DURATION", "how long to look for packets before sleeping, such as 50us; default: not at all", f.setSpin)
	option(fs, "pcap", "FILE", "write the instance's packets to a file", path(&f.pcap))
}

func (f *flags) registerProgram(fs *pflag.FlagSet) {
	option(fs, "name", "NAME", "the instance's name, the program's host name; default: the program's", f.setName)
	option(fs, "kthreads", "N", "most processors that the program sees and uses at once; default: all", number(&f.kthreads, 1, 4096))
	option(fs, "quantum", "DURATION", "how long a thread computes while others wait for a processor, 0: until it makes a system call; default: 100us", f.setQuantum)
	word(fs, &f.engine, "engine", "WORD", "how program code is executed: inproc (in the libOS's address space), systrap (in processes of its own), or auto: inproc where this host allows it; default: auto")
	word(fs, &f.moves, "moves", "WORD", "for tests: exchange address spaces for nothing (always), for little (soon), or never")
	_ = fs.MarkHidden("moves") // fails for unknown flags only
	word(fs, &f.boundary, "boundary", "WORD", "what a host call outside the list does: kill the instance, trap (die printing where), or off (no list, privileges stay); default: kill")
	option(fs, "env", "KEY=VALUE", "environment variable for the program, beside the caller's; repeatable", f.addEnv)
	option(fs, "cwd", "DIR", "working directory in the instance; default: the caller's, or / with --rootfs", path(&f.cwd))
	option(fs, "uid", "ID", "the program's user in the instance; default: the caller's", id(&f.uid))
	option(fs, "gid", "ID", "the program's group in the instance; default: the caller's", id(&f.gid))
	option(fs, "rw", "DIR", "host directory whose changes are written through; repeatable", f.addReadWrite)
	option(fs, "rootfs", "DIR", "host directory that becomes the instance's root; default: /", path(&f.root))
}

func (f *flags) registerOutput(fs *pflag.FlagSet) {
	fs.BoolVar(&f.strace, "strace", false, "log the program's system calls")
	word(fs, &f.logFormat, "log", "WORD", "form of messages on standard error, text or json; default: text")
	option(fs, "log-level", "LEVEL", "least level of messages: debug, info, warn or error; default: warn", f.setLogLevel)
	word(fs, &f.stats, "stats", "WORD", "print what was used and dropped to standard error at the end, as text or json")
	fs.Lookup("stats").NoOptDefVal = "text"
	fs.BoolVar(&f.check, "check", false, "print what this host, and the NIC of --nic, offer, then exit")
	fs.BoolVar(&f.json, "json", false, "print --check and errors as JSON")
}

// value is a flag whose text a function checks and stores.
type value struct {
	meta string // what the value is, for the help
	set  func(string) error
}

func (v value) Set(s string) error { return v.set(s) }
func (v value) Type() string       { return v.meta }
func (value) String() string       { return "" } // defaults are in the help's text

func option(fs *pflag.FlagSet, name, meta, usage string, set func(string) error) {
	fs.Var(value{meta, set}, name, usage)
}

// word defines a flag that takes one of enums[name].
func word(fs *pflag.FlagSet, to *string, name, meta, usage string) {
	option(fs, name, meta, usage, func(s string) error {
		if !slices.Contains(enums[name], s) {
			return fmt.Errorf("accepted: %s", strings.Join(enums[name], ", "))
		}
		*to = s
		return nil
	})
}

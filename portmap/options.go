package portmap

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"junction/portmap/table"
)

// Options say what a Map manages.
type Options struct {
	// Shared are the shared addresses, 1 to table.MaxShared; the position of
	// one is its index in the table.
	Shared []netip.Addr
	// Unowned is where frames go that are for a shared address but for no port
	// that an instance owns: other protocols, connection attempts to refuse.
	Unowned table.Mode
	// EphemeralLow and EphemeralHigh bound the ports that bind to port 0 and
	// implicit binds choose from, both included; default 32768 to 60999, as
	// Linux's ip_local_port_range.
	EphemeralLow, EphemeralHigh uint16
	// Share, if not 0, bounds how much of a shared address one instance may have,
	// so that there is something left for others: of the ephemeral ports, and of the
	// other ports, for each protocol, at most Share times as many as are free.
	// Beyond: ErrShare.
	Share int
	// Seed decides which ephemeral ports are chosen. It has to be random, lest
	// ports be guessed (RFC 6056).
	Seed [32]byte
	// Slots, a power of two, is four times the number of addresses, shared and
	// dedicated; default 4096.
	Slots uint32
	// HashSeed has to be random: see table.Geometry.
	HashSeed uint64
	// MaxTimeWait bounds how long a closed port may be kept; default 4
	// minutes, twice the longest segment lifetime (RFC 9293).
	MaxTimeWait time.Duration
}

// Defaults of Options and Lease.
const (
	DefaultEphemeralLow  = 32768
	DefaultEphemeralHigh = 60999
	DefaultSlots         = 4096
	DefaultMaxTimeWait   = 4 * time.Minute
	DefaultMaxSockets    = 1 << 16
)

// slotsPerAddress keeps the table of addresses so empty that an address
// without a place within its window is not to be expected.
const slotsPerAddress = 4

func (o Options) withDefaults() Options {
	o.EphemeralLow = cmp.Or(o.EphemeralLow, DefaultEphemeralLow)
	o.EphemeralHigh = cmp.Or(o.EphemeralHigh, DefaultEphemeralHigh)
	o.Slots = cmp.Or(o.Slots, DefaultSlots)
	o.MaxTimeWait = cmp.Or(o.MaxTimeWait, DefaultMaxTimeWait)
	return o
}

func (o Options) geometry() table.Geometry {
	return table.Geometry{Shared: uint32(len(o.Shared)), Slots: o.Slots, HashSeed: o.HashSeed}
}

func (o Options) check() error {
	if err := o.geometry().Check(); err != nil {
		return fmt.Errorf("portmap options: %w: %w", err, unix.EINVAL)
	}
	if len(o.Shared) > int(o.Slots)/slotsPerAddress {
		return invalid("portmap options: %d slots are too few for %d addresses", o.Slots, len(o.Shared))
	}
	if o.EphemeralLow > o.EphemeralHigh {
		return invalid("portmap options: ephemeral ports from %d to %d", o.EphemeralLow, o.EphemeralHigh)
	}
	if o.Share < 0 {
		return invalid("portmap options: negative share")
	}
	if o.MaxTimeWait < 0 || !o.Unowned.Valid() {
		return invalid("portmap options: longest TIME_WAIT %v, unowned to %v", o.MaxTimeWait, o.Unowned)
	}
	return checkAddrs(o.Shared)
}

// checkAddrs refuses what can be no interface's address, and repetitions.
func checkAddrs(addrs []netip.Addr) error {
	seen := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
			return invalid("%v cannot be an instance's address", a)
		}
		if seen[a] {
			return invalid("address %v is given twice", a)
		}
		seen[a] = true
	}
	return nil
}

// Instance is the number of an instance, 1 to table.MaxOwner.
type Instance uint32

// Lease is what an instance is allowed.
type Lease struct {
	// Addrs are the instance's addresses, 1 to MaxAddrs: shared ones, and others,
	// which become its dedicated addresses.
	Addrs []netip.Addr
	// Mode is where frames to the instance's endpoints go at first.
	Mode table.Mode
	// MinPort is the lowest port that may be asked for by number; below: EACCES.
	MinPort uint16
	// MaxPorts bounds the ports owned (one on two addresses counts twice) and
	// MaxSockets the sockets, those in TIME_WAIT included; beyond: ENOBUFS.
	// Defaults: no bound, and DefaultMaxSockets.
	MaxPorts, MaxSockets int
	// Returning: until Settle, the instance takes again what it had, which neither
	// MaxPorts nor Options.Share bounds.
	Returning bool
}

func (l Lease) withDefaults() Lease {
	l.MaxSockets = cmp.Or(l.MaxSockets, DefaultMaxSockets)
	return l
}

// MaxAddrs is the largest number of an instance's addresses.
const MaxAddrs = 64

func (l Lease) check() error {
	switch {
	case len(l.Addrs) == 0 || len(l.Addrs) > MaxAddrs:
		return invalid("%d addresses, not 1 to %d", len(l.Addrs), MaxAddrs)
	case !l.Mode.Valid():
		return invalid("unknown %v", l.Mode)
	case l.MaxPorts < 0 || l.MaxSockets < 0:
		return invalid("negative limit")
	}
	return checkAddrs(l.Addrs)
}

func invalid(format string, args ...any) error { return failure(unix.EINVAL, format, args...) }

func failure(errno unix.Errno, format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errno)...)
}

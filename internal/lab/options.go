package lab

import (
	"fmt"
	"net/netip"

	"junction/internal/lab/impair"
)

// Names of the network interfaces of a lab.
const (
	// ServerNIC is the NIC in the server namespace. With Bridge it is the
	// bridge's uplink.
	ServerNIC = "nic0"
	// ClientNIC is the NIC in the client namespace.
	ClientNIC = "net0"
	// ServerTAP is the persistent multi-queue TAP of a Bridge lab.
	ServerTAP = "tap0"
	// ServerBridge joins ServerNIC and ServerTAP in a Bridge lab.
	ServerBridge = "br0"
	// MiddleClientNIC faces the client in the middle namespace.
	MiddleClientNIC = "mid0"
	// MiddleServerNIC faces the server in the middle namespace.
	MiddleServerNIC = "mid1"
)

// Addresses a lab uses unless told otherwise (RFC 2544 and RFC 4193 ranges).
// The server's are only a proposal for the instance: the kernel does not hold
// them.
var (
	ClientAddr4 = netip.MustParsePrefix("198.18.0.1/24")
	ClientAddr6 = netip.MustParsePrefix("fd00:18::1/64")
	ServerAddr4 = netip.MustParsePrefix("198.18.0.2/24")
	ServerAddr6 = netip.MustParsePrefix("fd00:18::2/64")
)

// Limits of Options. The kernel's own for a veth are an MTU of 68 to 65535
// bytes; IPv6 needs 1280 (RFC 8200, section 5).
const (
	minMTU    = 68
	maxMTU    = 65535
	minMTU6   = 1280
	maxQueues = 64
)

// Options describes a lab. The zero value is a veth with the kernel's defaults,
// ClientAddr4 and ClientAddr6 on the client's side.
type Options struct {
	// MTU of every link, in bytes; 0 is 1500.
	MTU int
	// Queues is the number of receive and of transmit queues of both ends of
	// each veth, and how many queues the instance can have; 0 is 1.
	Queues int
	// TxQueueLen of the veths, in packets; 0 is the kernel's default.
	TxQueueLen int
	// ClientAddrs are the client's addresses; nil means ClientAddr4 and
	// ClientAddr6, an empty slice none.
	ClientAddrs []netip.Prefix
	// NoOffloads switches segmentation and checksum offloads off on both ends,
	// so that frames on the veth look as they would on a cable. By default a
	// veth passes partial checksums and segments of up to 64 KiB.
	NoOffloads bool
	// Bridge puts ServerNIC into a bridge with a persistent TAP, ServerTAP, for
	// the instance to attach to.
	Bridge bool
	// Middle puts a namespace with two unconnected NICs between client and
	// server; whoever asks for it forwards the frames. Offloads are off.
	Middle bool
	// Impair puts a forwarder into the middle namespace that does to the frames
	// what the plan says; see Lab.Forwarder.
	Impair *impair.Plan
}

// withDefaults returns o with defaults filled in, or what is wrong with it.
func (o Options) withDefaults() (Options, error) {
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.Queues == 0 {
		o.Queues = 1
	}
	if o.ClientAddrs == nil {
		o.ClientAddrs = []netip.Prefix{ClientAddr4}
		if o.MTU >= minMTU6 {
			o.ClientAddrs = append(o.ClientAddrs, ClientAddr6)
		}
	}
	o.Middle = o.Middle || o.Impair != nil
	o.NoOffloads = o.NoOffloads || o.Middle
	return o, o.check()
}

func (o Options) check() error {
	switch {
	case o.MTU < minMTU || o.MTU > maxMTU:
		return fmt.Errorf("lab: MTU %d: want %d to %d", o.MTU, minMTU, maxMTU)
	case o.Queues < 1 || o.Queues > maxQueues:
		return fmt.Errorf("lab: %d queues: want 1 to %d", o.Queues, maxQueues)
	case o.TxQueueLen < 0:
		return fmt.Errorf("lab: TxQueueLen %d is negative", o.TxQueueLen)
	}
	for _, a := range o.ClientAddrs {
		if !a.IsValid() {
			return fmt.Errorf("lab: client address %v is not valid", a)
		}
		if a.Addr().Is6() && o.MTU < minMTU6 {
			return fmt.Errorf("lab: address %v needs an MTU of at least %d, not %d", a, minMTU6, o.MTU)
		}
	}
	return nil
}

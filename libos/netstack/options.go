// Package netstack sets up an instance's TCP/IP stack: IPv4, IPv6, ARP, TCP,
// UDP, ICMP and raw sockets on gVisor's netstack, with a loopback interface
// and, in direct and server mode, the instance's link.
package netstack

import (
	"errors"
	"fmt"
	"math/rand"
	"net"
	"net/netip"

	modeswitch "junction/switch"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// ErrConfig is returned, wrapped, for options that cannot be met.
var ErrConfig = errors.New("network configuration")

// Neighbor is a static entry of the neighbour table (ARP or NDP).
type Neighbor struct {
	IP  netip.Addr
	MAC net.HardwareAddr
}

// Options describes the stack. The zero value is a stack with nothing but loopback.
type Options struct {
	// Link is the instance's link endpoint; nil for none. The caller closes
	// its back end after Close.
	Link *modeswitch.Endpoint
	// LinkName is the link's interface name. Default "eth0".
	LinkName string
	// Addresses are the link's static addresses, with the prefix lengths of
	// the networks they are in. There must be one at least.
	Addresses []netip.Prefix
	// Gateways are the default routers, at most one for each of IPv4 and IPv6.
	// Each is inside a network of Addresses or is an IPv6 link-local address.
	Gateways []netip.Addr
	// MTU is the largest IP packet of the link, in bytes. Default: what its
	// device can carry, which is also the upper limit.
	MTU int
	// Neighbors are static entries for the link. They are never resolved or aged.
	Neighbors []Neighbor

	// Ports, if not nil, owns the ports of Addresses, which other instances have
	// too.
	Ports Ports
	// SharedMAC: the link's Ethernet address is other instances' too, so that no
	// IPv6 address can be made of it.
	SharedMAC bool

	// Clock is the stack's time. Default: the host's.
	Clock tcpip.Clock
	// Stats are the counters to use; those that are nil are made.
	Stats tcpip.Stats
	// IPTables makes the initial packet filter. Default: netstack's own, empty.
	IPTables func(tcpip.Clock, *rand.Rand) *stack.IPTables
}

func (o *Options) validate() error {
	if o.Link == nil {
		if len(o.Addresses)+len(o.Gateways)+len(o.Neighbors) != 0 || o.MTU != 0 {
			return fmt.Errorf("%w: addresses, gateways, MTU and neighbours need a link", ErrConfig)
		}
		return nil
	}
	if len(o.Addresses) == 0 {
		return fmt.Errorf("%w: the link has no address; give it one, such as 198.18.0.2/24", ErrConfig)
	}
	if limit := int(o.Link.MTU()); o.MTU != 0 && (o.MTU < modeswitch.MinMTU || o.MTU > limit) {
		return fmt.Errorf("%w: MTU %d is not between %d and %d, the device's", ErrConfig, o.MTU, modeswitch.MinMTU, limit)
	}
	if err := o.validateAddresses(); err != nil {
		return err
	}
	if err := o.validateGateways(); err != nil {
		return err
	}
	return o.validateNeighbors()
}

func (o *Options) validateAddresses() error {
	seen := make(map[netip.Addr]bool)
	for _, p := range o.Addresses {
		a := p.Addr()
		switch {
		case !p.IsValid() || a.Is4In6() || a.Zone() != "":
			return fmt.Errorf("%w: address %v is not an IPv4 or IPv6 address with a prefix length", ErrConfig, p)
		case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return fmt.Errorf("%w: address %v cannot belong to an interface; give a unicast address", ErrConfig, a)
		case isBroadcast(p):
			return fmt.Errorf("%w: address %v is the network or broadcast address of %v", ErrConfig, a, p.Masked())
		case seen[a]:
			return fmt.Errorf("%w: address %v is given twice", ErrConfig, a)
		case a.Is6() && o.mtu() < header.IPv6MinimumMTU:
			return fmt.Errorf("%w: address %v needs an MTU of at least %d (RFC 8200), it is %d", ErrConfig, a, header.IPv6MinimumMTU, o.mtu())
		}
		seen[a] = true
	}
	return nil
}

func (o *Options) mtu() int {
	if o.MTU != 0 {
		return o.MTU
	}
	return int(o.Link.MTU())
}

// isBroadcast reports whether an IPv4 prefix's address is the first or last of
// its network, where those are reserved.
func isBroadcast(p netip.Prefix) bool {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return false
	}
	if p.Addr() == p.Masked().Addr() {
		return true
	}
	next := p.Addr().Next()
	return !next.IsValid() || !p.Contains(next)
}

func (o *Options) validateGateways() error {
	var have4, have6 bool
	for _, g := range o.Gateways {
		have := &have4
		if g.Is6() {
			have = &have6
		}
		switch {
		case !g.IsValid() || g.Is4In6() || g.IsUnspecified() || g.IsMulticast() || g.IsLoopback() || g.Zone() != "":
			return fmt.Errorf("%w: gateway %v is not a unicast IPv4 or IPv6 address", ErrConfig, g)
		case *have:
			return fmt.Errorf("%w: gateway %v is the second one of its family; give one for IPv4 and one for IPv6", ErrConfig, g)
		case o.isOwn(g):
			return fmt.Errorf("%w: gateway %v is the interface's own address", ErrConfig, g)
		case !o.onLink(g):
			return fmt.Errorf("%w: gateway %v is in none of the networks of the addresses %v", ErrConfig, g, o.Addresses)
		}
		*have = true
	}
	return nil
}

func (o *Options) isOwn(a netip.Addr) bool {
	for _, p := range o.Addresses {
		if p.Addr() == a {
			return true
		}
	}
	return false
}

func (o *Options) onLink(a netip.Addr) bool {
	for _, p := range o.Addresses {
		if p.Contains(a) || a.Is6() && a.IsLinkLocalUnicast() && p.Addr().Is6() {
			return true
		}
	}
	return false
}

func (o *Options) validateNeighbors() error {
	for _, n := range o.Neighbors {
		if !n.IP.IsValid() || n.IP.Is4In6() || n.IP.Zone() != "" || n.IP.IsMulticast() || n.IP.IsUnspecified() {
			return fmt.Errorf("%w: static neighbour %v is not a unicast IPv4 or IPv6 address", ErrConfig, n.IP)
		}
		if len(n.MAC) != 6 || n.MAC[0]&1 != 0 {
			return fmt.Errorf("%w: MAC %q of static neighbour %v is not a unicast Ethernet address", ErrConfig, n.MAC, n.IP)
		}
	}
	return nil
}

package netstack

import (
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/link/loopback"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Interface numbers. Linux programs expect loopback to be the first.
const (
	LoopbackNIC tcpip.NICID = 1
	LinkNIC     tcpip.NICID = 2
)

// defaultLinkName is what programs expect a first Ethernet interface to be called.
const defaultLinkName = "eth0"

// Network is an instance's TCP/IP stack with its interfaces.
type Network struct {
	stack *stack.Stack
	opts  Options
}

// New makes the stack, configures its interfaces and starts to receive.
func New(opts Options) (*Network, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	s, err := newStack(&opts)
	if err != nil {
		return nil, err
	}
	n := &Network{stack: s, opts: opts}
	if err := n.configure(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Stack returns the stack itself, for the libOS to put sockets on.
func (n *Network) Stack() *stack.Stack { return n.stack }

// Close stops the link's goroutines and destroys the stack. The link's back
// end may be closed when it returns. When the libOS has destroyed the stack
// already, Close finds nothing left to do.
func (n *Network) Close() {
	if n.opts.Link != nil {
		n.opts.Link.Close()
	}
	n.stack.Destroy()
}

func (n *Network) configure() error {
	if err := n.addLoopback(); err != nil {
		return err
	}
	if n.opts.Link == nil {
		return nil
	}
	if err := n.addLink(); err != nil {
		return err
	}
	return n.opts.Link.Start(n.stack, LinkNIC)
}

func (n *Network) addLoopback() error {
	opts := stack.NICOptions{Name: "lo", DeliverLinkPackets: true}
	if err := n.createNIC(LoopbackNIC, ethernet.New(loopback.New()), opts); err != nil {
		return err
	}
	for _, p := range []string{"127.0.0.1/8", "::1/128"} {
		if err := n.addAddress(LoopbackNIC, netip.MustParsePrefix(p)); err != nil {
			return err
		}
	}
	return nil
}

func (n *Network) addLink() error {
	name := n.opts.LinkName
	if name == "" {
		name = defaultLinkName
	}
	if n.opts.MTU != 0 {
		n.opts.Link.SetMTU(uint32(n.opts.MTU))
	}
	opts := stack.NICOptions{Name: name, QDisc: n.opts.Link.QDisc(), DeliverLinkPackets: true}
	if err := n.createNIC(LinkNIC, n.opts.Link, opts); err != nil {
		return err
	}
	for _, p := range n.opts.Addresses {
		if err := n.addAddress(LinkNIC, p); err != nil {
			return err
		}
	}
	n.addRoutes()
	return n.addNeighbors()
}

func (n *Network) createNIC(id tcpip.NICID, ep stack.LinkEndpoint, opts stack.NICOptions) error {
	if err := n.stack.CreateNICWithOptions(id, ep, opts); err != nil {
		return fmt.Errorf("interface %s: %s", opts.Name, err)
	}
	return nil
}

// addAddress assigns an address and routes its network to the interface.
func (n *Network) addAddress(id tcpip.NICID, p netip.Prefix) error {
	a := tcpip.ProtocolAddress{
		Protocol: protocolOf(p.Addr()),
		AddressWithPrefix: tcpip.AddressWithPrefix{
			Address: tcpip.AddrFromSlice(p.Addr().AsSlice()), PrefixLen: p.Bits(),
		},
	}
	if err := n.stack.AddProtocolAddress(id, a, stack.AddressProperties{}); err != nil {
		return fmt.Errorf("address %v: %s", p, err)
	}
	n.stack.AddRoute(tcpip.Route{Destination: subnet(p), NIC: id})
	return nil
}

func (n *Network) addNeighbors() error {
	for _, e := range n.opts.Neighbors {
		addr := tcpip.AddrFromSlice(e.IP.AsSlice())
		if err := n.stack.AddStaticNeighbor(LinkNIC, protocolOf(e.IP), addr, tcpip.LinkAddress(e.MAC)); err != nil {
			return fmt.Errorf("static neighbour %v: %s", e.IP, err)
		}
	}
	return nil
}

// addRoutes adds the link's routes beyond those of its addresses: multicast
// and link-local, then the gateways.
func (n *Network) addRoutes() {
	extra := map[tcpip.NetworkProtocolNumber][]string{
		ipv4.ProtocolNumber: {"224.0.0.0/4"},
		ipv6.ProtocolNumber: {"fe80::/64", "ff00::/8"},
	}
	for _, p := range n.opts.Addresses {
		proto := protocolOf(p.Addr())
		for _, r := range extra[proto] {
			n.stack.AddRoute(tcpip.Route{Destination: subnet(netip.MustParsePrefix(r)), NIC: LinkNIC})
		}
		delete(extra, proto)
	}
	for _, g := range n.opts.Gateways {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if g.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		n.stack.AddRoute(tcpip.Route{
			Destination: subnet(all), Gateway: tcpip.AddrFromSlice(g.AsSlice()), NIC: LinkNIC,
		})
	}
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func subnet(p netip.Prefix) tcpip.Subnet {
	a := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(p.Addr().AsSlice()), PrefixLen: p.Bits()}
	return a.Subnet()
}

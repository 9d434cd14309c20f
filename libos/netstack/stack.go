package netstack

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/raw"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// Settings of the protocols. What they stand on:
const (
	// defaultTTL is Linux's net.ipv4.ip_default_ttl and IPv6 hop limit.
	defaultTTL = 64
	// firstPort and lastPort are Linux's net.ipv4.ip_local_port_range.
	firstPort, lastPort = 32768, 60999
	// Buffer sizes of a TCP connection in bytes. They grow from the default to
	// the maximum by themselves. The maximum keeps 10 Gbit/s busy over 5 ms,
	// of a receive buffer only half being offered as window.
	minBuffer        = tcp.MinBufferSize
	defaultBuffer    = 1 << 20
	maxReceiveBuffer = 16 << 20
	maxSendBuffer    = 8 << 20
)

// newStack makes a stack without interfaces.
func newStack(o *Options) (*stack.Stack, error) {
	newTCP, newUDP := stack.TransportProtocolFactory(tcp.NewProtocol), stack.TransportProtocolFactory(udp.NewProtocol)
	var k *keeper
	if o.Ports != nil {
		k = newKeeper(o.Ports)
		newTCP, newUDP = ownedPorts(newTCP, k), ownedPorts(newUDP, k)
	}
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{newIPv4(), newIPv6(o), arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{newTCP, newUDP, icmp.NewProtocol4, icmp.NewProtocol6},
		Clock:              o.Clock,
		Stats:              o.Stats,
		// Packets to an address of one's own never leave the stack, as on Linux,
		// unless others have the same address: then the network sends them back.
		HandleLocal:              o.Ports == nil,
		RawFactory:               raw.EndpointFactory{},
		AllowPacketEndpointWrite: true,
		DefaultIPTables:          o.IPTables,
	})
	if k != nil {
		k.stack = s
	}
	if err := setProtocolOptions(s); err != nil {
		s.Destroy()
		return nil, err
	}
	return s, nil
}

// newIPv4 reports group memberships, so that switches that snoop on them pass
// multicast on.
func newIPv4() stack.NetworkProtocolFactory {
	return ipv4.NewProtocolWithOptions(ipv4.Options{IGMP: ipv4.IGMPOptions{Enabled: true}})
}

// newIPv6 makes a link-local address of the MAC address, if that is its own, reports group
// memberships, and otherwise sends nothing unasked: no duplicate address
// detection (static addresses are usable at once), no router solicitation;
// router advertisements are ignored. A link whose MTU is too small for IPv6
// gets none of it (netstack never finishes a report larger than the MTU).
func newIPv6(o *Options) stack.NetworkProtocolFactory {
	able := o.Link == nil || o.mtu() >= header.IPv6MinimumMTU
	return ipv6.NewProtocolWithOptions(ipv6.Options{
		AutoGenLinkLocal: able && !o.SharedMAC,
		NDPConfigs:       ipv6.NDPConfigurations{HandleRAs: ipv6.HandlingRAsDisabled},
		DADConfigs:       stack.DADConfigurations{DupAddrDetectTransmits: 0},
		MLD:              ipv6.MLDOptions{Enabled: able},
	})
}

func setProtocolOptions(s *stack.Stack) error {
	for _, p := range []tcpip.NetworkProtocolNumber{ipv4.ProtocolNumber, ipv6.ProtocolNumber} {
		ttl := tcpip.DefaultTTLOption(defaultTTL)
		if err := s.SetNetworkProtocolOption(p, &ttl); err != nil {
			return fmt.Errorf("network protocol %#04x, TTL: %s", p, err)
		}
	}
	for _, opt := range tcpOptions() {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, opt); err != nil {
			return fmt.Errorf("TCP option %T: %s", opt, err)
		}
	}
	if err := s.SetPortRange(firstPort, lastPort); err != nil {
		return fmt.Errorf("ephemeral ports: %s", err)
	}
	return nil
}

// tcpOptions lists what differs from netstack's defaults or must not change
// with them.
func tcpOptions() []tcpip.SettableTransportProtocolOption {
	sack := tcpip.TCPSACKEnabled(true)
	// Not RACK: after a time-out netstack's takes all that was sent for lost and
	// for under way at once, and sends two segments for each further time-out.
	noRACK := tcpip.TCPRecovery(0)
	// Not CUBIC: after several losses in a row netstack's lets the congestion
	// window fall to 0, and with nothing under way no ACK or timer ever raises
	// it again. Reno's never falls below 1.
	reno := tcpip.CongestionControlOption("reno")
	autotune := tcpip.TCPModerateReceiveBufferOption(true)
	// A port whose connection is in TIME-WAIT may be used again where
	// timestamps make that safe, so that a client can open more than 28,000
	// connections a minute.
	reuse := tcpip.TCPTimeWaitReuseGlobal
	return []tcpip.SettableTransportProtocolOption{
		&sack, &noRACK, &reno, &autotune, &reuse,
		&tcpip.TCPSendBufferSizeRangeOption{Min: minBuffer, Default: defaultBuffer, Max: maxSendBuffer},
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: minBuffer, Default: defaultBuffer, Max: maxReceiveBuffer},
	}
}

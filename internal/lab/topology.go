package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// address gives the client's NIC its addresses, and a link-local one when any of
// them is of IPv6: real neighbours have one.
func address(client *Namespace, o Options) error {
	addrs := slices.Clone(o.ClientAddrs)
	if slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		mac, err := client.HardwareAddr(ClientNIC)
		if err != nil {
			return err
		}
		if err := client.Sysctl("net/ipv6/conf/"+ClientNIC+"/accept_ra", "0"); err != nil {
			return err
		}
		addrs = append(addrs, linkLocal(mac))
	}
	for _, a := range addrs {
		if err := client.AddAddr(ClientNIC, a); err != nil {
			return err
		}
	}
	return nil
}

// linkLocal makes a link-local address of a 6-byte MAC (RFC 4291, appendix A).
func linkLocal(mac net.HardwareAddr) netip.Prefix {
	a := [16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// bridge joins ServerNIC and a persistent TAP in the server's namespace.
func bridge(server *Namespace, o Options) error {
	if err := addTAP(server, o); err != nil {
		return err
	}
	err := server.netlink(func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = ServerBridge, o.MTU
		snoop := false // multicast goes everywhere, and the bridge asks nobody
		br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snoop}
		if err := h.LinkAdd(br); err != nil {
			return fmt.Errorf("lab: bridge: %w", err)
		}
		return errors.Join(enslave(h, ServerNIC, br), enslave(h, ServerTAP, br))
	})
	if err != nil {
		return err
	}
	plain := Options{MTU: o.MTU}
	return errors.Join(end{server, ServerBridge}.raise(plain), end{server, ServerTAP}.raise(plain))
}

func enslave(h *netlink.Handle, ifname string, br *netlink.Bridge) error {
	link, err := h.LinkByName(ifname)
	if err == nil {
		err = h.LinkSetMaster(link, br)
	}
	if err != nil {
		return fmt.Errorf("lab: bridge %s: %w", ifname, err)
	}
	return nil
}

// addTAP makes a TAP device that outlives its users, and is attached to by none.
func addTAP(n *Namespace, o Options) error {
	return n.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = ServerTAP
		tap := &netlink.Tuntap{
			LinkAttrs: attrs,
			Mode:      netlink.TUNTAP_MODE_TAP,
			Flags:     netlink.TUNTAP_MULTI_QUEUE_DEFAULTS | netlink.TUNTAP_VNET_HDR,
			Queues:    1, // a user's own queues are made when it attaches
		}
		if err := netlink.LinkAdd(tap); err != nil {
			return fmt.Errorf("lab: TAP: %w", err)
		}
		for _, f := range tap.Fds {
			_ = f.Close()
		}
		link, err := netlink.LinkByName(ServerTAP)
		if err == nil {
			err = netlink.LinkSetMTU(link, o.MTU)
		}
		if err != nil {
			return fmt.Errorf("lab: MTU of the TAP: %w", err)
		}
		return nil
	})
}

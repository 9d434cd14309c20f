package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addrGenNone is IN6_ADDR_GEN_MODE_NONE (linux/if_link.h): no link-local address
// and so no router solicitations.
const addrGenNone = 1

// unlikeIndex is the interface index of one end of each veth. When both ends have
// the same, each in its namespace, the kernel takes them for no pair and
// notices that they are up only after a second (linkwatch_urgent_event).
const unlikeIndex = 1000

// offloads are the features that make frames in memory differ from frames on a
// cable.
var offloads = []string{
	"tx-checksum-ip-generic", "tx-checksum-sctp",
	"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation",
	"tx-udp-segmentation", "tx-generic-segmentation", "tx-gso-list", "rx-gro", "rx-gro-list",
}

// end is one end of a veth pair.
type end struct {
	ns   *Namespace
	name string
}

// connect joins two namespaces with a veth pair, both ends up and without
// address.
func connect(a, b end, o Options) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Index = a.name, o.MTU, unlikeIndex
	attrs.NumTxQueues, attrs.NumRxQueues = o.Queues, o.Queues
	if o.TxQueueLen > 0 {
		attrs.TxQLen = o.TxQueueLen
	}
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = b.name, netlink.NsFd(int(b.ns.handle))
	err := a.ns.netlink(func(h *netlink.Handle) error { return h.LinkAdd(veth) })
	if err != nil {
		return fmt.Errorf("lab: veth %s to %s: %w", a.name, b.name, err)
	}
	if err := errors.Join(a.raise(o), b.raise(o)); err != nil {
		return err
	}
	return errors.Join(a.awaitUp(), b.awaitUp())
}

// raise sets the link up as o wants it.
func (e end) raise(o Options) error {
	if o.NoOffloads {
		if err := e.ns.SetOffloads(e.name, false); err != nil {
			return err
		}
	}
	if o.MTU >= minMTU6 { // else the link has no IPv6 at all
		if err := e.ns.quiet(e.name); err != nil {
			return err
		}
	}
	return e.ns.up(e.name)
}

// quiet keeps the kernel from sending anything of its own accord on the link.
func (n *Namespace) quiet(ifname string) error {
	return n.netlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName(ifname)
		if err == nil {
			err = h.LinkSetIP6AddrGenMode(link, addrGenNone)
		}
		if err != nil {
			return fmt.Errorf("lab: no link-local address on %s: %w", ifname, err)
		}
		return nil
	})
}

func (n *Namespace) up(ifname string) error {
	return n.netlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName(ifname)
		if err == nil {
			err = h.LinkSetUp(link)
		}
		if err != nil {
			return fmt.Errorf("lab: set %s up: %w", ifname, err)
		}
		return nil
	})
}

// AddAddr gives a NIC an address, usable at once (no duplicate address
// detection).
func (n *Namespace) AddAddr(ifname string, p netip.Prefix) error {
	return n.changeAddr("add", ifname, p, (*netlink.Handle).AddrAdd)
}

// DelAddr takes an address from a NIC.
func (n *Namespace) DelAddr(ifname string, p netip.Prefix) error {
	return n.changeAddr("delete", ifname, p, (*netlink.Handle).AddrDel)
}

func (n *Namespace) changeAddr(what, ifname string, p netip.Prefix, change func(*netlink.Handle, netlink.Link, *netlink.Addr) error) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return n.netlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName(ifname)
		if err == nil {
			err = change(h, link, addr)
		}
		if err != nil {
			return fmt.Errorf("lab: %s %v on %s of %s: %w", what, p, ifname, n.name, err)
		}
		return nil
	})
}

// Neighbour tells the kernel an IP neighbour's MAC address, so that it need not
// ask.
func (n *Namespace) Neighbour(ifname string, ip netip.Addr, mac net.HardwareAddr) error {
	return n.netlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName(ifname)
		if err == nil {
			err = h.NeighSet(&netlink.Neigh{
				LinkIndex: link.Attrs().Index, IP: ip.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT,
			})
		}
		if err != nil {
			return fmt.Errorf("lab: neighbour %v on %s of %s: %w", ip, ifname, n.name, err)
		}
		return nil
	})
}

// SetOffloads switches the segmentation and checksum offloads of a NIC on or
// off.
func (n *Namespace) SetOffloads(ifname string, on bool) error {
	return n.Do(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return fmt.Errorf("lab: ethtool: %w", err)
		}
		defer e.Close()
		known, err := e.FeatureNames(ifname)
		if err != nil {
			return fmt.Errorf("lab: features of %s: %w", ifname, err)
		}
		want := map[string]bool{}
		for _, name := range offloads {
			if _, ok := known[name]; ok {
				want[name] = on
			}
		}
		if err := e.Change(ifname, want); err != nil {
			return fmt.Errorf("lab: offloads of %s: %w", ifname, err)
		}
		return nil
	})
}

// HardwareAddr returns a NIC's MAC address.
func (n *Namespace) HardwareAddr(ifname string) (mac net.HardwareAddr, err error) {
	err = n.netlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName(ifname)
		if err != nil {
			return fmt.Errorf("lab: %s of %s: %w", ifname, n.name, err)
		}
		mac = link.Attrs().HardwareAddr
		return nil
	})
	return mac, err
}

// Links names the network interfaces of the namespace, loopback included.
func (n *Namespace) Links() (names []string, err error) {
	err = n.netlink(func(h *netlink.Handle) error {
		links, err := h.LinkList()
		if err != nil {
			return fmt.Errorf("lab: links of %s: %w", n.name, err)
		}
		for _, l := range links {
			names = append(names, l.Attrs().Name)
		}
		return nil
	})
	return names, err
}

// added names the links that were not there when the namespace was made.
func (n *Namespace) added() ([]string, error) {
	all, err := n.Links()
	return slices.DeleteFunc(all, func(name string) bool {
		return slices.Contains(n.builtin, name)
	}), err
}

// deleteLinks deletes the links that can be deleted, so that none waits for the
// kernel to dismantle the namespace, which it does late and only when nothing
// refers to it any more.
func (n *Namespace) deleteLinks() error {
	return n.netlink(func(h *netlink.Handle) error {
		links, err := h.LinkList()
		if err != nil {
			return fmt.Errorf("lab: links of %s: %w", n.name, err)
		}
		for _, l := range links {
			err := h.LinkDel(l)
			if err != nil && !isPermanent(err) && !isGone(err) {
				return fmt.Errorf("lab: delete %s of %s: %w", l.Attrs().Name, n.name, err)
			}
		}
		return nil
	})
}

// isPermanent says that a link, such as the loopback, cannot be deleted.
func isPermanent(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM)
}

// isGone says that a link went with another, as the end of a veth does.
func isGone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.As(err, &netlink.LinkNotFoundError{})
}

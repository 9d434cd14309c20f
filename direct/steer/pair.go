package steer

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"junction/direct/afxdp"
	"junction/direct/internal/nic"
)

// pair is the veth pair of a VF. Programs hang on the devices themselves, not on
// links, so that they stay when the monitor dies and go with the devices.
type pair struct {
	inner, outer         int // their numbers; 0: there is none
	innerName, outerName string
}

// prefix begins the names of all VFs' devices.
const prefix = "jvf"

// pairName is jvfUPLINK.SLOT, and i or o behind it.
func pairName(uplink, slot int) string { return fmt.Sprintf("%s%d.%d", prefix, uplink, slot) }

// newPair makes the devices, down, with one queue: a redirected frame goes to the
// queue of the processor it is on.
func newPair(l *nic.Link, slot, mtu int) (p pair, err error) {
	name := pairName(l.Attrs().Index, slot)
	p.innerName, p.outerName = name+"i", name+"o"
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.NumRxQueues, attrs.NumTxQueues = p.outerName, mtu, 1, 1
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: p.innerName, PeerMTU: uint32(mtu), PeerNumRxQueues: 1, PeerNumTxQueues: 1}
	if err := l.Netlink.LinkAdd(veth); err != nil {
		return p, nic.Denied(err, "make the veth pair "+name, "CAP_NET_ADMIN")
	}
	for _, end := range []struct {
		name  string
		index *int
	}{{p.outerName, &p.outer}, {p.innerName, &p.inner}} {
		d, err := l.Netlink.LinkByName(end.name)
		if err != nil {
			return p, fmt.Errorf("look up %s: %w", end.name, err)
		}
		*end.index = d.Attrs().Index
		if err := quiet(l, d); err != nil {
			return p, err
		}
	}
	return p, nil
}

// quiet keeps the host's network stack from using a device.
func quiet(l *nic.Link, d netlink.Link) error {
	name := d.Attrs().Name
	if err := l.Netlink.LinkSetARPOff(d); err != nil {
		return fmt.Errorf("set ARP of %s off: %w", name, err)
	}
	for path, value := range map[string]string{
		"ipv6/conf/" + name + "/disable_ipv6": "1", "ipv4/conf/" + name + "/forwarding": "0",
	} {
		err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("keep the host's stack off %s: %w", name, err)
		}
	}
	return nil
}

// guard hangs the egress program on the outer end, which is down until then.
func (p *pair) guard(l *nic.Link, egress *ebpf.Program) error {
	attrs := netlink.QdiscAttrs{LinkIndex: p.outer, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
	if err := l.Netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: attrs}); err != nil {
		return nic.Denied(err, "make a clsact qdisc on "+p.outerName, "CAP_NET_ADMIN")
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: p.outer, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:          egress.FD(), Name: "junction_egress", DirectAction: true,
	}
	return nic.Denied(l.Netlink.FilterAdd(filter), "check what "+p.outerName+" sends", "CAP_NET_ADMIN")
}

// attach hangs the program that redirects to the instance's socket on the inner
// end.
func (p *pair) attach(program *afxdp.Program) error {
	d := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: p.inner}}
	err := netlink.LinkSetXdpFdWithFlags(d, program.Prog.FD(), unix.XDP_FLAGS_DRV_MODE)
	return nic.Denied(err, "attach XDP to "+p.innerName, "CAP_NET_ADMIN")
}

// innerLink looks the inner end up.
func (p *pair) innerLink(l *nic.Link) (*nic.Link, error) { return nic.Find(p.innerName, nil) }

// up sets both ends up.
func (p *pair) up(l *nic.Link) error {
	for _, index := range []int{p.inner, p.outer} {
		if err := l.Netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}); err != nil {
			return nic.Denied(err, "set "+p.outerName+" up", "CAP_NET_ADMIN")
		}
	}
	return nil
}

// remove deletes the devices, and with them their programs.
func (p *pair) remove(l *nic.Link) error {
	if p.outer == 0 {
		return nil
	}
	return deleteLink(l, p.outer)
}

func deleteLink(l *nic.Link, index int) error {
	err := l.Netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}})
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete a VF's device: %w", err)
	}
	return nil
}

// sweep deletes the VFs that a monitor which died has left on this uplink.
func (u *Uplink) sweep() error {
	l := u.nic.Link()
	all, err := l.Netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	mine := fmt.Sprintf("%s%d.", prefix, l.Attrs().Index)
	for _, d := range all {
		if name := d.Attrs().Name; d.Type() == "veth" && strings.HasPrefix(name, mine) && strings.HasSuffix(name, "o") {
			l.Warn("deleting %s, which a monitor left that died", name)
			if err := deleteLink(l, d.Attrs().Index); err != nil {
				return err
			}
		}
	}
	return nil
}

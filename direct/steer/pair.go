package steer

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"junction/direct/afxdp"
	"junction/direct/internal/nic"
	"junction/direct/internal/outlet"
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
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.NumRxQueues, attrs.NumTxQueues = name+"o", mtu, 1, 1
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: name + "i", PeerMTU: uint32(mtu), PeerNumRxQueues: 1, PeerNumTxQueues: 1}
	if err := l.Netlink.LinkAdd(veth); err != nil {
		return p, nic.Denied(err, "make the veth pair "+name, "CAP_NET_ADMIN")
	}
	if p, err = findPair(l, slot); err != nil {
		return p, err
	}
	return p, errors.Join(l.Quiet(p.outerName), l.Quiet(p.innerName))
}

// guard hangs the egress program on the outer end, which is down until then.
func (p *pair) guard(l *nic.Link, egress *ebpf.Program) error {
	return outlet.Guard(l, p.outer, egress, false)
}

// findPair looks the devices of a VF up.
func findPair(l *nic.Link, slot int) (p pair, err error) {
	name := pairName(l.Attrs().Index, slot)
	p.innerName, p.outerName = name+"i", name+"o"
	for _, end := range []struct {
		name  string
		index *int
	}{{p.outerName, &p.outer}, {p.innerName, &p.inner}} {
		d, err := l.Netlink.LinkByName(end.name)
		if err != nil {
			return p, fmt.Errorf("look up %s: %w", end.name, err)
		}
		*end.index = d.Attrs().Index
	}
	return p, nil
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
	return outlet.Delete(l, p.outer)
}

// sweepBut deletes the VFs that a monitor which died has left on this uplink, but
// for some.
func (u *Uplink) sweepBut(these []*VF) error {
	l := u.nic.Link()
	all, err := l.Netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	mine := fmt.Sprintf("%s%d.", prefix, l.Attrs().Index)
	for _, d := range all {
		name := d.Attrs().Name
		if !left(d, mine) || slices.ContainsFunc(these, func(v *VF) bool {
			return v != nil && (v.pair.outerName == name || v.outlet != nil && v.outlet.Index == d.Attrs().Index)
		}) {
			continue
		}
		l.Warn("deleting %s, which a monitor left that died", name)
		if err := outlet.Delete(l, d.Attrs().Index); err != nil {
			return err
		}
	}
	return nil
}

// left tells whether a device is the outer end of a VF's pair, or its outlet, by
// its name, which begins with mine.
func left(d netlink.Link, mine string) bool {
	name := d.Attrs().Name
	rest, ok := strings.CutPrefix(name, mine)
	return ok && (d.Type() == "veth" && strings.HasSuffix(rest, "o") || d.Type() == "tuntap" && strings.HasSuffix(rest, outletSuffix))
}

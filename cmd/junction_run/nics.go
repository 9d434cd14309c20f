package main

import (
	"slices"

	"github.com/vishvananda/netlink"
)

// candidateNICs lists the NICs of this network namespace that --nic may name:
// all but loopback and those of default routes, by which the host lives. It
// only serves messages and completion, so failures leave the list empty.
func candidateNICs() []string {
	links, err := netlink.LinkList()
	if err != nil {
		return nil
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil
	}
	taken := make(map[int]bool)
	for _, r := range routes {
		if isDefault(r) {
			taken[r.LinkIndex] = true
			for _, hop := range r.MultiPath {
				taken[hop.LinkIndex] = true
			}
		}
	}
	var names []string
	for _, l := range links {
		a := l.Attrs()
		if a.EncapType == "ether" && !taken[a.Index] {
			names = append(names, a.Name)
		}
	}
	slices.Sort(names)
	return names
}

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

// Package steer is the switch at the NIC: an XDP program sends each frame from
// the wire to the network server, or straight to an instance that is in direct
// mode, whose MAC and IP addresses stay what they are.
//
//	wire ── uplink [steer] ── AF_XDP socket ── network server ══ rings ══ instance
//	           │    ╰── devmap ── VF outer ── inner [redirect] ── AF_XDP socket ── instance
//	           ╰──── redirect ─── VF outer [egress] ────────────────────────────────╯
//
// A VF ("virtual function", as of SR-IOV hardware) is a veth pair in the
// monitor's network namespace. Its inner end has the instance's AF_XDP socket,
// which the monitor makes and passes on; the instance needs no privilege. What
// the instance sends comes out of the outer end, where a program lets onto the
// wire only what comes from the instance's own MAC, IP address and port. No frame
// reaches the host's network stack.
//
// Who owns what is in the portmap's table (portmap/table). An instance's frames
// go to its VF if it has one and is steered there (Uplink.Steer: one store of one
// word). A VF may be for some of the instance's local ports only (package scope):
// what is not for them, or does not show its ports, is the server's as if there were
// no VF. Everything else is the network server's, too:
//
//   - ARP, neighbour discovery, and what of IPv6 may hide it behind extension
//     headers; group addresses, tagged frames;
//   - of a shared address all but whole TCP and UDP packets without IP options
//     or extension headers: the server knows whose the rest is;
//   - frames for nobody, and those that look wrong, which the server counts.
//
// The same holds for what an instance sends, see package egress: what is not for
// the VF it sends through its ring.
//
// While an instance is switched (Uplink.Stamp), its frames are numbered, on both
// paths, so that it can put them in order: direct.Stamp.
//
// The processes that are at the other ends of sockets may come and go; what they
// write to their rings harms only them. Of the monitor's own objects, programs and
// sockets of VFs live as long as the VF's devices, those of the uplink as long as
// anybody holds what Uplink.Keep returns.
package steer

import "errors"

// ErrNoVF is returned, wrapped, when there is no VF to be had.
var ErrNoVF = errors.New("no direct queue is free")

//go:generate ./bpf/build.sh

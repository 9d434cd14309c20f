package direct

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// Offer says whether something is to be had here, and if not why.
type Offer struct {
	Available bool   `json:"available"`
	Reason    string `json:"reason,omitempty"`
}

// Report says what this host offers for direct mode.
type Report struct {
	// Privileges tells which of the capabilities that this package may need
	// the process has.
	Privileges map[string]bool `json:"privileges"`
	AFXDP      Offer           `json:"afxdp"`
	TAP        Offer           `json:"tap"`
	Macvtap    Offer           `json:"macvtap"`
	// Outlet: TCP segments can leave AF_XDP queues whole, see Mode.Outlet.
	Outlet Offer `json:"outlet"`
	// NIC is nil unless a NIC was asked for.
	NIC *NICReport `json:"nic,omitempty"`
}

// NICReport says what a NIC offers.
type NICReport struct {
	Name string `json:"name"`
	// Usable: Open would not refuse the NIC for what it is.
	Usable Offer  `json:"usable"`
	Kind   string `json:"kind"`
	MTU    int    `json:"mtu_bytes"`
	Queues int    `json:"rx_queues"`
	// What the driver says that it can do with XDP. Without NativeXDP, AF_XDP
	// uses generic XDP.
	NativeXDP bool `json:"native_xdp"`
	ZeroCopy  bool `json:"zero_copy"`
	Frags     bool `json:"frags"`
	// What the NIC could steer by itself, which is not used.
	nic.Hardware
}

// Probe finds out what this host, and the NIC name unless it is empty, offer.
// It changes nothing and disturbs no traffic. It looks at the calling thread's
// network namespace.
func Probe(name string) Report {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := Report{Privileges: privileges(), AFXDP: offer(probeAFXDP()), TAP: offer(probeTAP()), Macvtap: offer(probeMacvtap()), Outlet: offer(probeOutlet())}
	if name != "" {
		r.NIC = probeNIC(name)
	}
	return r
}

func offer(err error) Offer {
	if err != nil {
		return Offer{Reason: err.Error()}
	}
	return Offer{Available: true}
}

// capabilities that opening a device may need; see capabilities(7).
var capabilities = map[string]uint{
	"CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_NET_RAW": unix.CAP_NET_RAW, "CAP_BPF": unix.CAP_BPF,
	"CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "CAP_IPC_LOCK": unix.CAP_IPC_LOCK, "CAP_MKNOD": unix.CAP_MKNOD,
}

func privileges() map[string]bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	has := make(map[string]bool, len(capabilities))
	err := unix.Capget(&header, &data[0])
	for name, bit := range capabilities {
		has[name] = err == nil && data[bit/32].Effective>>(bit%32)&1 != 0
	}
	return has
}

func probeAFXDP() error {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nic.Denied(err, "open an AF_XDP socket", "CAP_NET_RAW")
	}
	_ = unix.Close(fd)
	return nic.Denied(errors.Join(features.HaveProgramType(ebpf.XDP), features.HaveMapType(ebpf.XSKMap)),
		"use XDP programs", "CAP_BPF", "CAP_NET_ADMIN")
}

func probeTAP() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	has, err := unix.IoctlGetInt(fd, unix.TUNGETFEATURES)
	if need := unix.IFF_TAP | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE; err != nil || has&need != need {
		return fmt.Errorf("this kernel's TAP has no virtio_net_hdr or multiple queues (features %#x, %w)", has, errors.Join(err, ErrUnsupported))
	}
	return needNetAdmin()
}

func probeMacvtap() error {
	devices, err := os.ReadFile("/proc/devices")
	if err != nil {
		return fmt.Errorf("look for macvtap: %w", err)
	}
	if !slices.Contains(strings.Fields(string(devices)), "macvtap") {
		return fmt.Errorf("%w: the kernel's macvtap is not there; load the module macvtap", ErrUnsupported)
	}
	return needNetAdmin()
}

func probeOutlet() error {
	if err := probeTAP(); err != nil {
		return err
	}
	return nic.Denied(features.HaveProgramType(ebpf.SchedCLS), "use programs of traffic control", "CAP_BPF", "CAP_NET_ADMIN")
}

func needNetAdmin() error {
	if !privileges()["CAP_NET_ADMIN"] {
		return nic.Denied(unix.EPERM, "make a TAP", "CAP_NET_ADMIN")
	}
	return nil
}

func probeNIC(name string) *NICReport {
	l, err := nic.Find(name, nil)
	if err != nil {
		return &NICReport{Name: name, Usable: offer(err)}
	}
	defer l.Close()
	r := &NICReport{Name: name, Usable: offer(l.Usable()), Kind: l.Type(), MTU: l.Attrs().MTU, Queues: l.Attrs().NumRxQueues}
	r.Hardware = l.Hardware()
	f := xdpFeatures(l.Attrs().Index)
	const basic, redirect, zeroCopy, frags = 1, 2, 8, 32 // enum netdev_xdp_act, linux/netdev.h
	r.NativeXDP, r.ZeroCopy, r.Frags = f&(basic|redirect) == basic|redirect, f&zeroCopy != 0, f&frags != 0
	return r
}

// xdpFeatures asks the kernel what a NIC's driver can do
// (Documentation/netlink/specs/netdev.yaml, Linux 6.3); 0 if it does not tell.
func xdpFeatures(index int) uint64 {
	const (
		cmdDevGet       = 1
		version         = 1
		attrIfindex     = 1
		attrXDPFeatures = 3
	)
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		return 0
	}
	request := nl.NewNetlinkRequest(int(family.ID), 0)
	// Not nl.Genlmsg, which leaves the two reserved bytes to chance.
	request.AddRawData(append([]byte{cmdDevGet, version, 0, 0}, nl.NewRtAttr(attrIfindex, nl.Uint32Attr(uint32(index))).Serialize()...))
	messages, err := request.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil || len(messages) != 1 || len(messages[0]) < nl.SizeofGenlmsg {
		return 0
	}
	attrs, err := nl.ParseRouteAttr(messages[0][nl.SizeofGenlmsg:])
	if err != nil {
		return 0
	}
	for _, a := range attrs {
		if a.Attr.Type == attrXDPFeatures && len(a.Value) == 8 {
			return binary.NativeEndian.Uint64(a.Value)
		}
	}
	return 0
}

package direct_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"junction/direct"
)

// refused opens and returns the error, which must be want and mention says.
func refused(t *testing.T, o direct.Options, want error, says ...string) {
	t.Helper()
	d, err := direct.Open(context.Background(), o)
	if err == nil {
		require.NoError(t, d.Close())
	}
	require.ErrorIs(t, err, want)
	require.Nil(t, d)
	for _, text := range says {
		require.ErrorContains(t, err, text)
	}
}

func TestNoNIC(t *testing.T) {
	enter(t)
	refused(t, direct.Options{NIC: "none0", Driver: "afxdp"}, direct.ErrNoNIC, `"none0"`, "ip link")
	refused(t, direct.Options{NIC: "none0"}, direct.ErrNoNIC, `"none0"`)
}

func TestBadOptions(t *testing.T) {
	enter(t)
	wire(t, 1500, 1)
	_, err := direct.Open(context.Background(), direct.Options{NIC: nicName, Driver: "dpdk"})
	require.ErrorContains(t, err, `unknown driver "dpdk": use afxdp, tap or afpacket`)
	_, err = direct.Open(context.Background(), direct.Options{NIC: nicName, MAC: make(net.HardwareAddr, 8)})
	require.ErrorContains(t, err, "8 bytes")
	refused(t, direct.Options{NIC: nicName, Driver: "afxdp", Queues: 3}, direct.ErrUnsupported, "3 queues", "which has 1", "ethtool -L")
	refused(t, direct.Options{NIC: "lo"}, direct.ErrUnsupported, "not an Ethernet NIC")
}

func TestMTU(t *testing.T) {
	for _, driver := range drivers {
		enter(t)
		wire(t, 1500, 1)
		refused(t, direct.Options{NIC: nicName, Driver: driver, MTU: 9000}, direct.ErrMTU, "9000", "ip link set dev nic0 mtu 9000")
		refused(t, direct.Options{NIC: nicName, Driver: driver, MTU: 60}, direct.ErrMTU, "IPv4 needs at least 68")
		d := open(t, direct.Options{NIC: nicName, Driver: driver, MTU: 1280})
		require.Equal(t, 1280, d.MTU())
		q := d.Queues()[0]
		require.NoError(t, q.Transmit(nil, [][]byte{make([]byte, 1280+18)}))
		require.ErrorIs(t, q.Transmit(nil, [][]byte{make([]byte, 1280+19)}), direct.ErrTooLong)
		require.Equal(t, uint64(1), d.Stats().Refused["tx_too_long"])
		require.NoError(t, d.Close())
	}
}

func TestDefaultRoute(t *testing.T) {
	enter(t)
	wire(t, 1500, 1)
	l := up(t, nicName)
	addr, err := netlink.ParseAddr("198.18.0.1/24")
	require.NoError(t, err)
	require.NoError(t, netlink.AddrAdd(l, addr))
	route := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP("198.18.0.2")}
	require.NoError(t, netlink.RouteAdd(route))
	for _, driver := range append(drivers, "") {
		refused(t, direct.Options{NIC: nicName, Driver: driver}, direct.ErrDefaultRoute, nicName, "another NIC")
	}
	require.NoError(t, netlink.RouteDel(route))
	open(t, direct.Options{NIC: nicName})
}

// TestInUse: a second Open names the holder, and the first goes on working.
func TestInUse(t *testing.T) {
	eachDriver(t, 1500, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		d := open(t, direct.Options{NIC: nicName, Driver: driver})
		for _, other := range append(drivers, "") {
			refused(t, direct.Options{NIC: nicName, Driver: other}, direct.ErrInUse, nicName, "pid "+strconv.Itoa(os.Getpid()), filepath.Base(os.Args[0])[:6])
		}
		require.ErrorIs(t, direct.Check(context.Background(), nicName, ""), direct.ErrInUse)
		echo(t, d.Queues()[0], newStation(t, peerName), mac, peer, 100)
		require.NoError(t, d.Close())
		require.NoError(t, direct.Check(context.Background(), nicName, ""))
		for _, other := range drivers {
			require.NoError(t, open(t, direct.Options{NIC: nicName, Driver: other}).Close())
		}
	})
}

func TestInUseIsCancelled(t *testing.T) {
	enter(t)
	wire(t, 1500, 1)
	open(t, direct.Options{NIC: nicName, Driver: "afxdp"})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := direct.Open(ctx, direct.Options{NIC: nicName, Driver: "afxdp"})
	require.ErrorIs(t, err, direct.ErrInUse)
	require.ErrorIs(t, err, context.Canceled)
}

// TestBridgePort: a NIC that another kind of holder has.
func TestBridgePort(t *testing.T) {
	enter(t)
	wire(t, 1500, 1)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	require.NoError(t, netlink.LinkAdd(bridge))
	require.NoError(t, netlink.LinkSetMaster(up(t, nicName), bridge))
	refused(t, direct.Options{NIC: nicName, Driver: "tap"}, direct.ErrInUse, "bridge")
}

// TestForeignHolder: a holder that does not use this package is named too.
func TestForeignHolder(t *testing.T) {
	enter(t)
	mac, _ := wire(t, 1500, 1)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return()}})
	require.NoError(t, err)
	defer prog.Close()
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: mac.Index})
	require.NoError(t, err)
	pid := "pid " + strconv.Itoa(os.Getpid())
	refused(t, direct.Options{NIC: nicName, Driver: "afxdp"}, direct.ErrInUse, pid)
	refused(t, direct.Options{NIC: nicName, Driver: "tap"}, direct.ErrInUse, nicName)
	require.NoError(t, l.Close())
	for _, driver := range drivers {
		require.NoError(t, open(t, direct.Options{NIC: nicName, Driver: driver}).Close())
	}

	attrs := netlink.NewLinkAttrs()
	attrs.Name = "tap1"
	tap := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_MULTI_QUEUE_DEFAULTS, Queues: 1}
	require.NoError(t, netlink.LinkAdd(tap))
	refused(t, direct.Options{NIC: "tap1", Driver: "tap"}, direct.ErrInUse, pid)
	require.NoError(t, tap.Fds[0].Close())
	require.NoError(t, open(t, direct.Options{NIC: "tap1", Driver: "tap"}).Close())
}

// TestPrivileges opens on threads without one capability each.
func TestPrivileges(t *testing.T) {
	for _, c := range []struct {
		driver, nic string
		drop        []int
		says        string
	}{
		{"afxdp", nicName, []int{unix.CAP_NET_RAW}, "CAP_NET_RAW"},
		{"afxdp", nicName, []int{unix.CAP_BPF, unix.CAP_SYS_ADMIN}, "CAP_BPF"},
		{"afxdp", nicName, []int{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN}, "CAP_NET_ADMIN"},
		{"tap", nicName, []int{unix.CAP_NET_ADMIN}, "CAP_NET_ADMIN"},
		{"tap", nicName, []int{unix.CAP_MKNOD}, "CAP_MKNOD"},
		{"tap", "tap7", []int{unix.CAP_NET_ADMIN}, "CAP_NET_ADMIN"},
	} {
		t.Run(c.driver+" "+c.nic+" without "+c.says, func(t *testing.T) {
			enter(t)
			wire(t, 1500, 1)
			dropCapabilities(t, c.drop)
			refused(t, direct.Options{NIC: c.nic, Driver: c.driver}, direct.ErrPermission, c.says, "run as root", "setcap")
			_, err := netlink.LinkByName("jx" + strconv.Itoa(up(nil, nicName).Attrs().Index))
			require.ErrorAs(t, err, &netlink.LinkNotFoundError{}, "a macvtap is left")
		})
	}
}

// dropCapabilities takes capabilities from the calling thread, which ends with
// the test.
func dropCapabilities(t *testing.T, drop []int) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	require.NoError(t, unix.Capget(&header, &data[0]))
	for _, c := range drop {
		data[c/32].Effective &^= 1 << (c % 32)
		data[c/32].Permitted &^= 1 << (c % 32)
	}
	require.NoError(t, unix.Capset(&header, &data[0]))
}

// TestAutomaticDriver: AF_XDP where it can be had, a TAP as a TAP.
func TestAutomaticDriver(t *testing.T) {
	enter(t)
	wire(t, 1500, 1)
	d := open(t, direct.Options{NIC: nicName})
	require.Equal(t, "afxdp", d.Mode().Driver)
	require.NoError(t, d.Close())
	persistentTAP(t, "tap0")
	d = open(t, direct.Options{NIC: "tap0"})
	require.Equal(t, "tap", d.Mode().Driver)
	require.NoError(t, d.Close())
	refused(t, direct.Options{NIC: "tap0", Driver: "afxdp"}, direct.ErrUnsupported, "use the tap driver")
}

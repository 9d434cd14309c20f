package afxdp

import (
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"junction/direct/internal/nic"
)

// TestXDPLink: NICs of two network namespaces have the same number, and each its own
// program.
func TestXDPLink(t *testing.T) {
	var numbers [2]int
	for i := range numbers {
		runtime.LockOSThread() // the thread ends with its namespace
		ns, err := netns.New()
		require.NoError(t, err, "these tests need root")
		require.NoError(t, ns.Close())
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "nic0"
		require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer0"}))
		l, err := nic.Find("nic0", nil)
		require.NoError(t, err)
		t.Cleanup(l.Close)
		_, ok := xdpLink(l)
		require.False(t, ok, "it has none yet")
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return()}})
		require.NoError(t, err)
		t.Cleanup(func() { _ = prog.Close() })
		attached, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: l.Attrs().Index, Flags: link.XDPGenericMode})
		require.NoError(t, err)
		t.Cleanup(func() { _ = attached.Close() })
		info, err := attached.Info()
		require.NoError(t, err)
		id, ok := xdpLink(l)
		require.True(t, ok)
		require.Equal(t, info.ID, id)
		numbers[i] = l.Attrs().Index
	}
	require.Equal(t, numbers[0], numbers[1])
}

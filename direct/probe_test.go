package direct_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/direct"
)

// TestProbe compares what Probe says with what Open does.
func TestProbe(t *testing.T) {
	enter(t)
	wire(t, 1500, 2)
	r := direct.Probe(nicName)
	require.True(t, r.AFXDP.Available, r.AFXDP.Reason)
	require.True(t, r.TAP.Available, r.TAP.Reason)
	require.True(t, r.Macvtap.Available, r.Macvtap.Reason)
	require.True(t, r.Privileges["CAP_NET_ADMIN"])
	require.True(t, r.NIC.Usable.Available)
	require.Equal(t, "veth", r.NIC.Kind)
	require.Equal(t, 1500, r.NIC.MTU)
	m := open(t, direct.Options{NIC: nicName, Driver: "afxdp"}).Mode()
	require.Equal(t, m.Attach == "native", r.NIC.NativeXDP)
	require.Equal(t, m.Copy == "zero-copy", r.NIC.ZeroCopy)
	require.Equal(t, m.Queues, r.NIC.Queues)
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(text), `"flow_steering":false,"sriov_vfs":0`, "a veth")
	require.Nil(t, direct.Probe("").NIC)
	require.Contains(t, direct.Probe("none0").NIC.Usable.Reason, "no such NIC")
	require.False(t, direct.Probe("lo").NIC.Usable.Available)
}

func TestProbeWithoutPrivileges(t *testing.T) {
	enter(t)
	dropCapabilities(t, []int{unix.CAP_NET_RAW, unix.CAP_NET_ADMIN})
	r := direct.Probe("")
	require.Contains(t, r.AFXDP.Reason, "CAP_NET_RAW")
	require.Contains(t, r.TAP.Reason, "CAP_NET_ADMIN")
	require.Contains(t, r.Macvtap.Reason, "CAP_NET_ADMIN")
	require.False(t, r.Privileges["CAP_NET_RAW"])
	require.True(t, r.Privileges["CAP_SYS_ADMIN"])
}

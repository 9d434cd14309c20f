package nic

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/safchain/ethtool"
	"github.com/stretchr/testify/require"
)

// TestFeatureHasThatName: the kernel has a feature of the name that is looked for, here
// of loopback, which does not offer it.
func TestFeatureHasThatName(t *testing.T) {
	e, err := ethtool.NewEthtool()
	require.NoError(t, err)
	defer e.Close()
	all, err := e.FeaturesWithState("lo")
	require.NoError(t, err)
	require.Contains(t, all, ntuple)
	require.False(t, offered(all[ntuple]))
	require.True(t, offered(all["loopback"]), "loopback is it, for good")
	l, err := Find("lo", nil)
	require.NoError(t, err)
	defer l.Close()
	require.Equal(t, Hardware{}, l.Hardware())
	require.Empty(t, l.Hardware().Unused())
}

// TestTotalVFs reads what drivers of PCI devices write, and nothing outside.
func TestTotalVFs(t *testing.T) {
	dir := t.TempDir()
	for bus, text := range map[string]string{"0000:3b:00.0": "64\n", "0000:3b:00.1": "0\n", "bad": "many\n", "negative": "-1\n"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, bus), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, bus, "sriov_totalvfs"), []byte(text), 0o644))
	}
	for bus, want := range map[string]int{
		"0000:3b:00.0": 64, "0000:3b:00.1": 0, "bad": 0, "negative": 0, "virtio0": 0, "": 0, "..": 0, "../" + filepath.Base(dir) + "/0000:3b:00.0": 0,
	} {
		require.Equal(t, want, totalVFs(dir, bus), bus)
	}
}

func TestUnusedHardware(t *testing.T) {
	require.Equal(t, "the NIC's own flow steering (ntuple filters) and 8 SR-IOV functions are not used: a program steers frames to veth pairs instead",
		Hardware{FlowSteering: true, VFs: 8}.Unused())
	require.Contains(t, Hardware{VFs: 8}.Unused(), "own 8 SR-IOV functions are")
}

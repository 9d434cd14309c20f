package nic

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/safchain/ethtool"
)

// Hardware says what a NIC could do of what package direct/steer does with a program
// and veth pairs. None of it is used.
type Hardware struct {
	// FlowSteering: the NIC sends flows to queues by itself (ntuple filters: ethtool -N).
	FlowSteering bool `json:"flow_steering"`
	// VFs is how many virtual functions it can have (SR-IOV), 0 for none.
	VFs int `json:"sriov_vfs"`
}

// ntuple is the feature's name in the kernel (netdev_features_strings).
const ntuple = "rx-ntuple-filter"

// Hardware asks the driver, in the calling thread's network namespace, which must be
// the NIC's. What it does not tell is not there.
func (l *Link) Hardware() (h Hardware) {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return h
	}
	defer e.Close()
	if all, err := e.FeaturesWithState(l.Name()); err == nil {
		h.FlowSteering = offered(all[ntuple])
	}
	if info, err := e.DriverInfo(l.Name()); err == nil {
		h.VFs = totalVFs("/sys/bus/pci/devices", info.BusInfo)
	}
	return h
}

// offered tells whether a feature is on, or may be switched on.
func offered(s ethtool.FeatureState) bool { return s.Active || s.Available && !s.NeverChanged }

// totalVFs reads how many virtual functions a PCI device can have
// (Documentation/ABI/testing/sysfs-bus-pci). By the bus, for /sys/class/net may show
// another network namespace.
func totalVFs(devices, bus string) int {
	if bus == "" || bus != filepath.Base(bus) {
		return 0 // no device, or none on a bus
	}
	text, err := os.ReadFile(filepath.Join(devices, bus, "sriov_totalvfs"))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return max(0, n)
}

// Unused names what there is, for a warning; empty if there is nothing.
func (h Hardware) Unused() string {
	var all []string
	if h.FlowSteering {
		all = append(all, "flow steering (ntuple filters)")
	}
	if h.VFs > 0 {
		all = append(all, fmt.Sprintf("%d SR-IOV functions", h.VFs))
	}
	if all == nil {
		return ""
	}
	return "the NIC's own " + strings.Join(all, " and ") + " are not used: a program steers frames to veth pairs instead"
}

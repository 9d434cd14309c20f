package steer

import (
	"fmt"

	"github.com/cilium/ebpf"

	"junction/direct/internal/nic"
)

// counters has a VF's counters in the order of enum count in steer.c.
type counters struct {
	In, InBytes, Out, OutBytes                     uint64
	Short, SpoofedMAC, Servers, SpoofedIP, Spoofed uint64
	Long                                           uint64
}

// VFStats counts the frames of a VF, with their bytes.
type VFStats struct {
	Owner uint32 `json:"owner"`
	// In were steered to the instance. What it did not take in time its queue
	// counts (direct.QueueStats), or its device, if the instance was far behind.
	In      uint64 `json:"in"`
	InBytes uint64 `json:"in_bytes"`
	// Out came from the instance and went onto the wire.
	Out      uint64 `json:"out"`
	OutBytes uint64 `json:"out_bytes"`
	// Outlet says which of its frames leave by its outlet. A TCP packet that is cut
	// behind it counts once.
	Outlet nic.Outlet `json:"outlet,omitempty"`
	// Drops counts what the instance sent and may not: "short", "too_long",
	// "spoofed_mac", "spoofed_ip", "spoofed_port", and "not_direct" for what belongs
	// into its ring.
	Drops map[string]uint64 `json:"drops"`
}

// Stats returns the counters since the VF was made.
func (v *VF) Stats() (VFStats, error) {
	var perCPU []counters
	if err := v.u.objects.Counts.Lookup(uint32(v.slot), &perCPU); err != nil {
		return VFStats{}, fmt.Errorf("read the counters of VF %d: %w", v.slot, err)
	}
	s := VFStats{Owner: v.owner, Outlet: v.outletUse(), Drops: make(map[string]uint64)}
	for _, c := range perCPU {
		s.In += c.In
		s.InBytes += c.InBytes
		s.Out += c.Out
		s.OutBytes += c.OutBytes
		for name, n := range map[string]uint64{
			"short": c.Short, "spoofed_mac": c.SpoofedMAC, "not_direct": c.Servers, "spoofed_ip": c.SpoofedIP, "spoofed_port": c.Spoofed, "too_long": c.Long,
		} {
			if n != 0 {
				s.Drops[name] += n
			}
		}
	}
	return s, nil
}

func (v *VF) clearCounts() error {
	n, err := ebpf.PossibleCPU()
	if err == nil {
		err = v.u.objects.Counts.Put(uint32(v.slot), make([]counters, n))
	}
	if err != nil {
		return fmt.Errorf("clear the counters of VF %d: %w", v.slot, err)
	}
	return nil
}

package bench

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine describes where a report comes from.
type Machine struct {
	CPU         string `json:"cpu"`
	CPUs        int    `json:"cpus"` // that this process may use
	MemoryBytes uint64 `json:"memory_bytes"`
	Kernel      string `json:"kernel"`
	// Load averages over a minute: above 0 before the run, something else was
	// using the machine.
	LoadBefore float64 `json:"load_1m_before"`
	LoadAfter  float64 `json:"load_1m_after"`
}

// describeMachine fills in all but LoadAfter.
func describeMachine() (Machine, error) {
	var m Machine
	cpus, err := allowedCPUs()
	if err != nil {
		return m, err
	}
	m.CPUs = len(cpus)
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("uname: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(u.Release[:])
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, fmt.Errorf("sysinfo: %w", err)
	}
	m.MemoryBytes = info.Totalram * uint64(info.Unit)
	if m.CPU, err = cpuModel(); err != nil {
		return m, err
	}
	m.LoadBefore, err = loadAverage()
	return m, err
}

// cpuModel returns what /proc/cpuinfo calls the first processor; not every
// architecture names it.
func cpuModel() (string, error) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value), nil
		}
	}
	return "unknown", nil
}

// loadAverage returns the load average over the last minute.
func loadAverage() (float64, error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), " ")
	return strconv.ParseFloat(first, 64)
}

// allowedCPUs lists the CPUs that this process may use.
func allowedCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("which CPUs may be used: %w", err)
	}
	var cpus []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus, nil
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sys/unix"

	"junction/cmd/junction_run/internal/cli"
	"junction/direct"
)

// hostReport is what --check prints. Its JSON form is stable; schema counts
// incompatible changes.
type hostReport struct {
	Schema       int      `json:"schema"`
	Kernel       string   `json:"kernel"`
	Architecture string   `json:"architecture"`
	Processors   int      `json:"processors"`
	Engines      []string `json:"engines"`
	// NICs are those that --nic may name here.
	NICs []string `json:"nics"`
	// Drivers, privileges and, if --nic names one, the NIC.
	direct.Report
}

// check prints what this host offers and changes nothing. It fails when a NIC
// that s names cannot be used, after all has been printed.
func check(w io.Writer, s *cli.Settings, asJSON bool) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("reading the kernel's version: %w", err)
	}
	r := hostReport{
		Schema:       1,
		Kernel:       unix.ByteSliceToString(uts.Release[:]),
		Architecture: runtime.GOARCH,
		Processors:   runtime.NumCPU(),
		Engines:      cli.Engines(),
		NICs:         candidateNICs(),
		Report:       direct.Probe(s.NIC),
	}
	var unusable error
	if r.NIC != nil && !r.NIC.Usable.Available {
		unusable = fmt.Errorf("--nic %s: %s", s.NIC, r.NIC.Usable.Reason)
	}
	return errors.Join(unusable, r.write(w, asJSON))
}

func (r hostReport) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	return writeTable(w, r)
}

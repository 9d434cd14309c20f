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
	"junction/libos"
	"junction/libos/boundary"
	"junction/libos/engine"
)

// hostReport is what --check prints. Its JSON form is stable; schema counts
// incompatible changes.
type hostReport struct {
	Schema       int    `json:"schema"`
	Kernel       string `json:"kernel"`
	Architecture string `json:"architecture"`
	Processors   int    `json:"processors"`
	// Engine is the one that would be used, and EngineReason why it is that one.
	Engine       string `json:"engine"`
	EngineReason string `json:"engine_reason"`
	// Engines are all that there are.
	Engines map[string]engineReport `json:"engines"`
	// Boundary: the process of an instance can be confined.
	Boundary direct.Offer `json:"boundary"`
	// NICs are those that --nic may name here.
	NICs []string `json:"nics"`
	// Drivers, privileges and, if --nic names one, the NIC.
	direct.Report
}

// engineReport says whether an engine can be used, and of what it needs what
// is there.
type engineReport struct {
	direct.Offer
	Needs map[string]direct.Offer `json:"needs"`
	// Extras are what it can do without, but not as well.
	Extras map[string]direct.Offer `json:"extras,omitempty"`
}

// check prints what this host offers and changes nothing. It fails when the
// engine or the NIC that s names cannot be used, after all has been printed.
func check(w io.Writer, s *cli.Settings, asJSON bool) error {
	r, err := hostReportFor(s)
	if err != nil {
		return err
	}
	return errors.Join(r.unusable(s), r.write(w, asJSON))
}

func hostReportFor(s *cli.Settings) (hostReport, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return hostReport{}, fmt.Errorf("reading the kernel's version: %w", err)
	}
	chosen := libos.Choose(s.Engine)
	return hostReport{
		Schema:       2,
		Kernel:       unix.ByteSliceToString(uts.Release[:]),
		Architecture: runtime.GOARCH,
		Processors:   runtime.NumCPU(),
		Engine:       chosen.Name,
		EngineReason: chosen.Reason,
		Engines:      map[string]engineReport{engine.Inproc: reportEngine(engine.Inproc), engine.Systrap: reportEngine(engine.Systrap)},
		Boundary:     offer(boundary.Probe()),
		NICs:         candidateNICs(),
		Report:       direct.Probe(s.NIC),
	}, nil
}

func reportEngine(name string) engineReport {
	return engineReport{Offer: offer(engine.Probe(name)), Needs: offers(engine.Needs(name)), Extras: offers(engine.Extras(name))}
}

func offers(needs []engine.Need) map[string]direct.Offer {
	all := make(map[string]direct.Offer)
	for _, n := range needs {
		all[n.Name] = offer(n.Err)
	}
	return all
}

func offer(err error) direct.Offer {
	if err != nil {
		return direct.Offer{Reason: cli.OneLine(err)}
	}
	return direct.Offer{Available: true}
}

// unusable names what an instance with settings s could not have.
func (r hostReport) unusable(s *cli.Settings) (err error) {
	if e := r.Engines[r.Engine]; !e.Available {
		err = errors.Join(err, fmt.Errorf("--engine %s: %s", r.Engine, e.Reason))
	}
	if !r.Boundary.Available {
		err = errors.Join(err, fmt.Errorf("--boundary kill: %s", r.Boundary.Reason))
	}
	if r.NIC != nil && !r.NIC.Usable.Available {
		err = errors.Join(err, fmt.Errorf("--nic %s: %s", s.NIC, r.NIC.Usable.Reason))
	}
	return err
}

func (r hostReport) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	return writeTable(w, r)
}

package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"junction/internal/lab"
)

// Junction runs programs in instances of junction_run.
type Junction struct {
	// Path of the junction_run program.
	Path string
	// Driver is afxdp or tap; empty is --mode none.
	Driver string
	// Spin is how long the instance looks for packets before it sleeps.
	Spin time.Duration
	// Engine executes the program; empty is junction_run's default.
	Engine string
}

// Name implements System.
func (j Junction) Name() string {
	name := "junction-none"
	if j.Driver != "" {
		name = "junction-" + j.Driver
	}
	if j.Spin > 0 {
		name += "-spin"
	}
	if j.Engine != "" {
		name += "-" + j.Engine
	}
	return name
}

func (j Junction) prepare(_ *lab.Lab, p Program) (*plan, error) {
	argv := []string{j.Path}
	if j.Engine != "" {
		argv = append(argv, "--engine", j.Engine)
	}
	if p.Report {
		argv = append(argv, "--stats=json")
	}
	if j.Driver == "" {
		argv = append(argv, "--mode", "none")
	} else {
		argv = append(argv, "--mode", "direct", "--nic", lab.ServerNIC, "--driver", j.Driver,
			"--ip", serverAddr.String(), "--spin", j.Spin.String())
	}
	return &plan{
		argv: append(append(argv, "--"), p.Argv...),
		mode: j.mode,
		undo: func() error { return nil },
	}, nil
}

// junctionStats is what is needed of the object that --stats=json prints.
type junctionStats struct {
	Schema int
	Mode   string
	Engine string
	Device *junctionDevice
}

type junctionDevice struct {
	Driver, Attach, Copy string
	Queues               int
	NeedWakeup           bool `json:"need_wakeup"`
	Outlet               string
	Warnings             []string
}

func (d *junctionDevice) describe() []string {
	words := []string{d.Driver, d.Attach, d.Copy, fmt.Sprintf("%d queue(s)", d.Queues)}
	if d.NeedWakeup {
		words = append(words, "need-wakeup")
	}
	if d.Outlet != "" {
		words = append(words, "outlet for "+d.Outlet)
	}
	words = append(words, d.Warnings...)
	return slices.DeleteFunc(words, func(w string) bool { return w == "" })
}

func (d *junctionDevice) String() string { return strings.Join(d.describe(), ", ") }

var errNoStats = errors.New("junction_run printed no statistics")

// mode finds the statistics in what junction_run and its program printed.
func (j Junction) mode(log []byte) (string, error) {
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	var s junctionStats
	if err := json.Unmarshal(lines[len(lines)-1], &s); err != nil || s.Mode == "" {
		return "", errNoStats
	}
	if s.Schema != 1 {
		return "", fmt.Errorf("junction_run's statistics have schema %d, not 1", s.Schema)
	}
	words := []string{s.Mode, s.Engine}
	if d := s.Device; d != nil {
		words = append(words, d.describe()...)
	}
	if j.Spin > 0 {
		words = append(words, "spins "+j.Spin.String())
	}
	return strings.Join(words, ", "), nil
}

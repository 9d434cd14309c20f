// Package policies knows the policies that come with junction, by name.
package policies

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	cs "junction/coresched"
	"junction/coresched/policies/biff"
	"junction/coresched/policies/cfs"
	"junction/coresched/policies/edf"
	"junction/coresched/policies/fifo"
	"junction/coresched/policies/fifopercpu"
	"junction/coresched/policies/ias"
	"junction/coresched/policies/shinjuku"
	"junction/coresched/policies/sol"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrUnknown: no policy of this name.
	ErrUnknown = errors.New("no such policy")
	// ErrParameter: the policy has no such parameter, or not of this value.
	ErrParameter = errors.New("bad parameter")
)

// Params are parameters of policies by name. Each is a positive time.
type Params map[string]time.Duration

// maker makes a policy of parameters that are known to it.
type maker struct {
	is     string // in a few words
	params []string
	make   func(Params) cs.Policy
}

var makers = map[string]maker{
	"biff":        {"first come, first served; the simplest", nil, func(Params) cs.Policy { return biff.New() }},
	"fifo-percpu": {"a queue and an agent for each core", nil, func(Params) cs.Policy { return fifopercpu.New() }},
	"sol":         {"one queue, as fast as can be", nil, func(Params) cs.Policy { return sol.New() }},
	"edf":         {"earliest deadline first", nil, func(Params) cs.Policy { return edf.New() }},
	"fifo-central": {"one queue; slice: none unless given", []string{"slice"}, func(p Params) cs.Policy {
		return fifo.New(fifo.Options{Slice: p["slice"]})
	}},
	"shinjuku": {fmt.Sprintf("time slices, urgent work first; slice %v", shinjuku.Slice), []string{"slice"}, func(p Params) cs.Policy {
		return shinjuku.New(shinjuku.Options{Slice: p["slice"]})
	}},
	"cfs": {fmt.Sprintf("time by weight; latency %v, granularity %v", cfs.Latency, cfs.Granularity), []string{"latency", "granularity"}, func(p Params) cs.Policy {
		return cfs.New(cfs.Options{Latency: p["latency"], Granularity: p["granularity"]})
	}},
	"ias": {fmt.Sprintf("cores for instances that are congested; delay %v, quantum %v", ias.Delay, ias.Quantum), []string{"delay", "quantum"}, func(p Params) cs.Policy {
		return ias.New(ias.Options{Delay: p["delay"], Quantum: p["quantum"]})
	}},
}

// Names returns the names of all policies, sorted.
func Names() []string { return slices.Sorted(maps.Keys(makers)) }

// Help lists all policies, one on a line, each with its parameters and what they are
// unless given.
func Help() string {
	var b strings.Builder
	for _, name := range Names() {
		fmt.Fprintf(&b, "  %-12s  %s\n", name, makers[name].is)
	}
	return b.String()
}

// New returns a policy. Parameters that are not given have their defaults.
func New(name string, p Params) (cs.Policy, error) {
	m, ok := makers[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q; take one of %s", ErrUnknown, name, strings.Join(Names(), ", "))
	}
	for key, value := range p {
		if !slices.Contains(m.params, key) {
			return nil, fmt.Errorf("%w: %s=%v; %s has %s", ErrParameter, key, value, name, known(m.params))
		}
		if value <= 0 {
			return nil, fmt.Errorf("%w: %s=%v; take a time above 0", ErrParameter, key, value)
		}
	}
	return m.make(p), nil
}

func known(params []string) string {
	if len(params) == 0 {
		return "none"
	}
	return strings.Join(params, ", ")
}

// ParseParams reads parameters such as slice=30us.
func ParseParams(texts []string) (Params, error) {
	p := Params{}
	for _, text := range texts {
		key, value, _ := strings.Cut(text, "=")
		d, err := time.ParseDuration(value)
		if err != nil {
			return nil, fmt.Errorf("%w: %q; write such as slice=30us", ErrParameter, text)
		}
		p[key] = d
	}
	return p, nil
}

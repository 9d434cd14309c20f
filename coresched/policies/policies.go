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
	params []string
	make   func(Params) cs.Policy
}

var makers = map[string]maker{
	"biff":        {nil, func(Params) cs.Policy { return biff.New() }},
	"fifo-percpu": {nil, func(Params) cs.Policy { return fifopercpu.New() }},
	"sol":         {nil, func(Params) cs.Policy { return sol.New() }},
	"edf":         {nil, func(Params) cs.Policy { return edf.New() }},
	"fifo-central": {[]string{"slice"}, func(p Params) cs.Policy {
		return fifo.New(fifo.Options{Slice: p["slice"]})
	}},
	"shinjuku": {[]string{"slice"}, func(p Params) cs.Policy {
		return shinjuku.New(shinjuku.Options{Slice: p["slice"]})
	}},
	"cfs": {[]string{"latency", "granularity"}, func(p Params) cs.Policy {
		return cfs.New(cfs.Options{Latency: p["latency"], Granularity: p["granularity"]})
	}},
	"ias": {[]string{"delay", "quantum"}, func(p Params) cs.Policy {
		return ias.New(ias.Options{Delay: p["delay"], Quantum: p["quantum"]})
	}},
}

// Names returns the names of all policies, sorted.
func Names() []string { return slices.Sorted(maps.Keys(makers)) }

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

package libos

import "junction/libos/engine"

// Auto is the name of no engine: Boot chooses one.
const Auto = "auto"

// Choice is an engine and why it is that one.
type Choice struct {
	Name   string
	Reason string
	// Lacking: a better engine could not be had.
	Lacking bool
}

// Choose returns the engine that is used when asked is asked for.
func Choose(asked string) Choice { return choice(asked, engine.Probe) }

// choice takes for Auto the in-process engine where probe says that it can serve.
func choice(asked string, probe func(name string) error) Choice {
	if asked != Auto {
		return Choice{Name: asked, Reason: "asked for"}
	}
	if err := probe(engine.Inproc); err != nil {
		return Choice{Name: engine.Systrap, Reason: "inproc cannot be used: " + err.Error(), Lacking: true}
	}
	return Choice{Name: engine.Inproc, Reason: "the best that this host allows"}
}

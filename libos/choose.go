package libos

import "junction/libos/engine"

// Auto is the name of no engine: Boot chooses one.
const Auto = "auto"

// preferInproc: Auto is the in-process engine where that can serve.
const preferInproc = false

// Choice is an engine and why it is that one.
type Choice struct {
	Name   string
	Reason string
	// Lacking: a better engine could not be had.
	Lacking bool
}

// Choose returns the engine that is used when asked is asked for.
func Choose(asked string) Choice { return chooser{preferInproc, engine.Probe}.choose(asked) }

// chooser is what Choose depends on.
type chooser struct {
	preferInproc bool
	probe        func(name string) error
}

func (c chooser) choose(asked string) Choice {
	switch {
	case asked != Auto:
		return Choice{Name: asked, Reason: "asked for"}
	case !c.preferInproc:
		return Choice{Name: engine.Systrap, Reason: "the default; inproc is experimental and must be asked for"}
	}
	if err := c.probe(engine.Inproc); err != nil {
		return Choice{Name: engine.Systrap, Reason: "inproc cannot be used: " + err.Error(), Lacking: true}
	}
	return Choice{Name: engine.Inproc, Reason: "the best that this host allows"}
}

// An example of a policy of one's own: who came last runs first, in a module of
// its own. Build it, and give its path where the name of a policy is wanted.
package main

import (
	"slices"

	"junction/coresched"
	"junction/coresched/plugin"
)

type lifo struct {
	view  *coresched.View
	stack []coresched.Task
}

func (p *lifo) Traits() coresched.Traits { return coresched.Traits{Name: "lifo"} }

func (p *lifo) Start(v *coresched.View) { p.view, p.stack = v, nil }

// Handle keeps who can run and has no core on the stack, and nobody else.
func (p *lifo) Handle(m *coresched.Message) {
	if m.Task == coresched.NoTask {
		return
	}
	if i := slices.Index(p.stack, m.Task); i >= 0 {
		p.stack = slices.Delete(p.stack, i, i+1)
	}
	if m.Runnable && !m.OnCPU {
		p.stack = append(p.stack, m.Task)
	}
}

func (p *lifo) Schedule(_ coresched.CPU, _ coresched.Time, b *coresched.Batch) {
	for c := p.view.Idle().Next(0); c != coresched.NoCPU; c = p.view.Idle().Next(c + 1) {
		for i := len(p.stack) - 1; i >= 0; i-- {
			if t := p.stack[i]; p.view.Allowed(t, c) {
				b.Run(c, t)
				p.stack = slices.Delete(p.stack, i, i+1)
				break
			}
		}
	}
}

// Done puts back who could not run.
func (p *lifo) Done(t *coresched.Txn) {
	if t.Result != coresched.Complete && t.Task != coresched.NoTask {
		p.stack = append(p.stack, t.Task)
	}
}

func main() { plugin.Serve(&lifo{}, plugin.Options{}) }

package actors

import (
	"slices"
	"time"

	cs "junction/coresched"
	"junction/coresched/plugin"
)

// RotorTurns is how often a rotor takes the core from who has it.
const RotorTurns = 3 * time.Millisecond

// rotor serves a policy that takes a core from one task and gives it to the
// other, in turns, and writes its decisions down on a board.
func rotor(args []string) error {
	b, _, err := boardOf(args)
	if err == nil {
		plugin.Serve(&rotorPolicy{board: b}, plugin.Options{})
	}
	return err
}

type rotorPolicy struct {
	board   *Board
	view    *cs.View
	tasks   []cs.Task // all, the first to come first
	waiting []cs.Task
}

// Traits implements coresched.Policy.
func (p *rotorPolicy) Traits() cs.Traits { return cs.Traits{Name: "rotor"} }

// Start implements coresched.Policy.
func (p *rotorPolicy) Start(v *cs.View) { p.view, p.tasks, p.waiting = v, nil, nil }

// Handle implements coresched.Policy.
func (p *rotorPolicy) Handle(m *cs.Message) {
	if m.Task == cs.NoTask {
		return
	}
	without := func(all []cs.Task) []cs.Task {
		return slices.DeleteFunc(all, func(t cs.Task) bool { return t == m.Task })
	}
	p.waiting = without(p.waiting)
	switch gone := m.Type == cs.TaskDead || m.Type == cs.TaskDeparted; {
	case gone:
		p.tasks = without(p.tasks)
	case !slices.Contains(p.tasks, m.Task):
		p.tasks = append(p.tasks, m.Task)
	}
	if m.Runnable && !m.OnCPU {
		p.waiting = append(p.waiting, m.Task)
	}
}

// Schedule implements coresched.Policy.
func (p *rotorPolicy) Schedule(_ cs.CPU, now cs.Time, b *cs.Batch) {
	c := p.view.CPUs().Next(0)
	if len(p.waiting) == 0 {
		return
	}
	running := p.view.Running(c)
	if due := p.view.Since(c) + RotorTurns; running != cs.NoTask && now < due {
		b.Again(due)
		return
	}
	who := p.waiting[0]
	p.waiting = p.waiting[1:]
	b.Run(c, who)
	if running != cs.NoTask {
		p.board.Decided.Add(now, slices.Index(p.tasks, who))
	}
}

// Done implements coresched.Policy.
func (p *rotorPolicy) Done(t *cs.Txn) {
	if t.Result != cs.Complete && t.Task != cs.NoTask {
		p.waiting = append(p.waiting, t.Task)
	}
}

package policies_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	cs "junction/coresched"
	"junction/coresched/policies"
)

// stage is a policy on a machine that a transcript plays on.
type stage struct {
	t       *testing.T
	now     cs.Time
	machine *cs.Machine
	enclave *cs.Enclave
	agent   *cs.Agent
	names   map[cs.Task]string
	tasks   map[string]cs.Task
	hints   map[string]cs.Hints
}

// Transcripts of what each policy decides, in testdata/POLICY. Run with -rewrite
// to write down what it does now.
//
//	start POLICY cores=N [param=TIME…]   a machine, an enclave of it all
//	new NAME… [class=be nice=N group=N guaranteed=N deadline=TIME]   runnable tasks
//	wake|block|yield|preempt|die|depart NAME…   what happens to them
//	hint NAME… [as new]                   other hints, while it waits or runs
//	affinity NAME cores=LIST
//	busy|free CORE
//	rescan                                what an overflow leads to
//	decide [after=TIME]                   prints what was done, with results, and when it wants to be called again
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &stage{t: t}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			return s.play(d)
		})
	})
}

func (s *stage) play(d *datadriven.TestData) string {
	var words []string
	for _, a := range d.CmdArgs {
		if len(a.Vals) == 0 {
			words = append(words, a.Key)
		}
	}
	switch d.Cmd {
	case "start":
		return s.start(d, words[0])
	case "new":
		s.enter(d, words)
	case "wake":
		s.wake(d, words)
	case "hint":
		for _, name := range words {
			s.hints[name] = s.parseHints(d, s.hints[name])
			require.NoError(s.t, s.enclave.Hint(s.now, s.tasks[name], s.hints[name]))
		}
	case "affinity":
		set, err := cs.ParseCPUSet(arg(d, "cores", ""))
		require.NoError(s.t, err)
		require.NoError(s.t, s.enclave.SetAffinity(s.now, s.tasks[words[0]], set))
	case "busy", "free":
		var c cs.CPU
		_, err := fmt.Sscan(words[0], &c)
		require.NoError(s.t, err)
		require.NoError(s.t, s.machine.SetCPU(s.now, c, true, d.Cmd == "busy"))
	case "rescan":
		s.agent.Rescan(s.now, s.enclave)
	case "decide":
		after, err := time.ParseDuration(arg(d, "after", "0s"))
		require.NoError(s.t, err)
		s.now += after
		return s.decide()
	default:
		s.event(d.Cmd, words)
	}
	return ""
}

func arg(d *datadriven.TestData, key, standard string) string {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			return strings.Join(a.Vals, ",")
		}
	}
	return standard
}

func (s *stage) start(d *datadriven.TestData, name string) string {
	params := policies.Params{}
	cores := 0
	for _, a := range d.CmdArgs {
		switch {
		case a.Key == "cores":
			a.Scan(s.t, 0, &cores)
		case len(a.Vals) > 0:
			v, err := time.ParseDuration(a.Vals[0])
			require.NoError(s.t, err)
			params[a.Key] = v
		}
	}
	p, err := policies.New(name, params)
	require.NoError(s.t, err)
	m, err := cs.NewMachine(cores)
	require.NoError(s.t, err)
	e, err := m.NewEnclave(cs.FirstCPUs(cores), cs.EnclaveOptions{})
	require.NoError(s.t, err)
	*s = stage{
		t: s.t, machine: m, enclave: e, agent: cs.NewAgent(p),
		names: map[cs.Task]string{}, tasks: map[string]cs.Task{}, hints: map[string]cs.Hints{},
	}
	require.NoError(s.t, e.Attach(0, p.Traits().PerCPU))
	s.agent.Rescan(0, e)
	require.Equal(s.t, name, p.Traits().Name)
	return ""
}

func (s *stage) parseHints(d *datadriven.TestData, h cs.Hints) cs.Hints {
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "class":
			h.Class = map[string]cs.Class{"lc": cs.LatencyCritical, "be": cs.BestEffort}[a.Vals[0]]
		case "nice":
			n := 0
			a.Scan(s.t, 0, &n)
			h.Nice = int8(n)
		case "group":
			a.Scan(s.t, 0, &h.Group)
		case "guaranteed":
			a.Scan(s.t, 0, &h.Guaranteed)
		case "deadline":
			v, err := time.ParseDuration(a.Vals[0])
			require.NoError(s.t, err)
			h.Deadline = v
		}
	}
	return h
}

func (s *stage) enter(d *datadriven.TestData, names []string) {
	for _, name := range names {
		h := s.parseHints(d, cs.Hints{})
		t, err := s.enclave.Enter(s.now, true, h)
		require.NoError(s.t, err)
		s.names[t], s.tasks[name], s.hints[name] = name, t, h
	}
}

func (s *stage) wake(d *datadriven.TestData, names []string) {
	for _, name := range names {
		s.hints[name] = s.parseHints(d, s.hints[name])
		require.NoError(s.t, s.enclave.Hint(s.now, s.tasks[name], s.hints[name]))
		require.NoError(s.t, s.enclave.Wakeup(s.now, s.tasks[name]))
	}
}

func (s *stage) event(what string, names []string) {
	f, ok := map[string]func(cs.Time, cs.Task) error{
		"block": s.enclave.Block, "yield": s.enclave.Yield, "preempt": s.enclave.Preempt,
		"die": s.enclave.Die, "depart": s.enclave.Depart,
	}[what]
	require.True(s.t, ok, "%s", what)
	for _, name := range names {
		require.NoError(s.t, f(s.now, s.tasks[name]))
	}
}

// decide has each agent do a round.
func (s *stage) decide() string {
	agents := []cs.CPU{cs.NoCPU}
	if s.agent.Traits().PerCPU {
		cpus := s.enclave.CPUs()
		agents = nil
		for c := cpus.Next(0); c != cs.NoCPU; c = cpus.Next(c + 1) {
			agents = append(agents, c)
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "at %v\n", s.now)
	for _, c := range agents {
		s.round(c, &out)
	}
	s.machine.Actions()
	return out.String()
}

func (s *stage) round(agent cs.CPU, out *strings.Builder) {
	buf := make([]cs.Message, 16)
	for s.enclave.Waiting(agent) {
		n, err := s.enclave.Receive(agent, buf)
		require.NoError(s.t, err)
		for i := range buf[:n] {
			s.agent.Deliver(&buf[i])
		}
	}
	var b cs.Batch
	s.agent.Decide(agent, s.now, &b)
	s.agent.Commit(s.enclave, s.now, agent, &b)
	for i := range b.Txns() {
		x := &b.Txns()[i]
		fmt.Fprintf(out, "%d: %s", x.CPU, s.names[x.Task])
		if x.Result != cs.Complete {
			fmt.Fprintf(out, " %v", x.Result)
		}
		out.WriteByte('\n')
	}
	s.agent.Settle(s.now, &b)
	// Slices begin with the commit.
	s.agent.Decide(agent, s.now, &b)
	if at, set := b.Timer(); set && len(b.Txns()) == 0 && !s.enclave.Waiting(agent) {
		fmt.Fprintf(out, "again at %v\n", at)
	}
	if len(b.Txns()) > 0 {
		s.agent.Commit(s.enclave, s.now, agent, &b)
		s.agent.Settle(s.now, &b)
		fmt.Fprintf(out, "and %d more\n", len(b.Txns()))
	}
}

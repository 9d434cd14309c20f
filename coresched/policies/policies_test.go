package policies_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	cs "junction/coresched"
	"junction/coresched/policies"
)

func TestNew(t *testing.T) {
	for _, name := range policies.Names() {
		p, err := policies.New(name, nil)
		require.NoError(t, err)
		require.Equal(t, name, p.Traits().Name)
	}
	_, err := policies.New("lottery", nil)
	require.ErrorIs(t, err, policies.ErrUnknown)
	_, err = policies.New("sol", policies.Params{"slice": 1})
	require.ErrorIs(t, err, policies.ErrParameter)
	_, err = policies.New("shinjuku", policies.Params{"slice": 0})
	require.ErrorIs(t, err, policies.ErrParameter)
}

// Help names each policy and each of its parameters.
func TestHelp(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(policies.Help(), "\n"), "\n")
	require.Len(t, lines, len(policies.Names()))
	for i, name := range policies.Names() {
		require.Equal(t, name, strings.Fields(lines[i])[0])
		_, err := policies.New(name, policies.Params{"nothing": 1})
		_, params, _ := strings.Cut(err.Error(), name+" has ")
		for _, p := range strings.Split(params, ", ") {
			require.True(t, p == "none" || strings.Contains(lines[i], p), "%q is not in %q", p, lines[i])
		}
	}
}

func TestParseParams(t *testing.T) {
	p, err := policies.ParseParams([]string{"slice=30us", "latency=6ms"})
	require.NoError(t, err)
	require.Equal(t, policies.Params{"slice": 30 * time.Microsecond, "latency": 6 * time.Millisecond}, p)
	for _, bad := range []string{"slice", "slice=", "slice=fast", "=", ""} {
		_, err := policies.ParseParams([]string{bad})
		require.ErrorIs(t, err, policies.ErrParameter, "%q", bad)
	}
}

// What an agent reads may come from memory that others write: whatever it is,
// nothing panics, and no policy gives a core to who cannot have it.
func FuzzHostileMessages(f *testing.F) {
	f.Add([]byte("\x01\x03\x01\x01\x00\x00\x00\x02\x02\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, name := range policies.Names() {
			p, err := policies.New(name, nil)
			require.NoError(t, err)
			play(t, p, b)
		}
	})
}

type anywhere struct{}

func (anywhere) Allowed(cs.Task, cs.CPU) bool { return true }

// play makes messages of b, ten bytes each.
func play(t *testing.T, p cs.Policy, b []byte) {
	a := cs.NewAgent(p)
	a.Start(anywhere{}, cs.FirstCPUs(3), nil)
	var batch cs.Batch
	for now := cs.Time(0); len(b) >= 10; now += 1000 {
		m := cs.Message{
			Type: cs.MessageType(b[0]), Runnable: b[1]&1 != 0, OnCPU: b[1]&2 != 0, Task: cs.Task(b[2] % 8), Seq: cs.Seq(b[3]),
			CPU: cs.CPU(int8(b[4])), Home: cs.CPU(int8(b[5])), Runtime: cs.Time(b[6]), At: now,
			Hints: cs.Hints{Class: cs.Class(b[7]), Nice: int8(b[8]), Group: uint32(b[9] % 4), Deadline: cs.Time(b[9])},
		}
		if b[2] > 250 {
			m.Task = 1 << 31
		}
		b = b[10:]
		a.Deliver(&m)
		agent := cs.NoCPU
		if a.Traits().PerCPU {
			agent = cs.CPU(now / 1000 % 3)
		}
		a.Decide(agent, now, &batch)
		given := map[cs.CPU]bool{}
		for i := range batch.Txns() {
			x := &batch.Txns()[i]
			require.False(t, given[x.CPU], "%s: core %d twice", p.Traits().Name, x.CPU)
			given[x.CPU] = true
			x.Result = cs.Complete
			if len(b) > 0 && b[0]&3 == 0 {
				x.Result = cs.TargetStale
			}
		}
		a.Settle(now, &batch)
	}
}

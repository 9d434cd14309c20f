package monitor

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/ipc/control"
	"junction/switch/protocol"
)

// command gives an operator's order.
func command[T any](t *testing.T, socket, verb string, args any) (v T, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o, err := client.DialOperator(ctx, socket)
	require.NoError(t, err)
	defer o.Close()
	return v, o.Ask(ctx, verb, args, &v)
}

// awaitModes waits until instances, in the order of their numbers, are in these modes,
// and returns the state.
func awaitModes(t *testing.T, socket string, modes ...string) (s Status) {
	t.Helper()
	require.Eventually(t, func() bool {
		s = mustAsk[Status](t, socket, "status")
		for n, i := range s.Instances {
			if i.Mode != modes[n] || i.Switching != "" {
				return false
			}
		}
		return len(s.Instances) == len(modes)
	}, time.Minute, 10*time.Millisecond)
	return s
}

// TestAuto: the policy gives the queue to the busiest, an operator takes it from it,
// and gives it back.
func TestAuto(t *testing.T) {
	f := newFakeFabric(1)
	socket := startWith(t, "counts", func(o *Options) {
		o.fabric, o.DirectQueues, o.autoHold = f, 1, 100*time.Millisecond
	})
	busy, calm := join(t, socket, "busy"), join(t, socket, "calm")
	defer answers(busy, 0)()
	defer answers(calm, 0)()
	s := awaitModes(t, socket, "server", "server")
	require.False(t, s.Auto.On)
	require.Empty(t, s.Instances[0].Reason)

	rate := 10000.0
	a, err := command[AutoStatus](t, socket, "auto", wire.Auto{On: true, Rate: &rate})
	require.NoError(t, err)
	require.Equal(t, wire.AutoSettings{On: true, Queues: 1, Rate: rate}, a.AutoSettings)
	s = awaitModes(t, socket, "direct", "server")
	require.Contains(t, s.Instances[1].Reason, "a queue is for 10000 packets/s")
	require.False(t, s.Instances[0].Pinned)
	require.Eventually(t, func() bool {
		i := mustAsk[Status](t, socket, "status").Instances[0]
		return strings.Contains(i.Reason, "keeps its queue") && i.RatePPS >= rate
	}, time.Minute, time.Millisecond)
	require.Eventually(t, func() bool { // the outcome is noted after the switch
		d := mustAsk[Status](t, socket, "status").Auto.Decisions
		return len(d) == 1 && d[0].Name == "busy" && d[0].To == protocol.Direct && d[0].Outcome == "done" && d[0].RatePPS >= rate && d[0].Reason != ""
	}, time.Minute, time.Millisecond)

	// Who waits for a queue by an operator's order is the first, and keeps it.
	r, err := orderSwitch(t, socket, calm.Lease().ID, protocol.Direct, true)
	require.NoError(t, err)
	require.Empty(t, r.Reason)
	s = awaitModes(t, socket, "server", "direct")
	require.True(t, s.Instances[1].Pinned)
	require.Equal(t, 1, s.Auto.Pinned)

	// Left to the policy again, it has it no longer.
	i, err := command[InstanceStatus](t, socket, "unpin", wire.Target{ID: calm.Lease().ID})
	require.NoError(t, err)
	require.False(t, i.Pinned)
	awaitModes(t, socket, "direct", "server")

	// Without the policy all stay in their modes.
	a, err = command[AutoStatus](t, socket, "auto", wire.Auto{})
	require.NoError(t, err)
	require.False(t, a.On)
	require.Equal(t, rate, a.Rate)
	s = awaitModes(t, socket, "direct", "server")
	require.Empty(t, s.Instances[0].Reason)

	// Nor does it touch what an operator has decided.
	r, err = orderSwitch(t, socket, busy.Lease().ID, protocol.Server, false)
	require.NoError(t, err)
	require.Empty(t, r.Reason)
	before := mustAsk[Status](t, socket, "status").Auto.Switches
	_, err = command[AutoStatus](t, socket, "auto", wire.Auto{On: true})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		i := mustAsk[Status](t, socket, "status").Instances[0]
		return i.RatePPS > rate && i.Reason == "an operator has decided" && i.Mode == "server"
	}, time.Minute, 10*time.Millisecond)
	require.Equal(t, before, mustAsk[Status](t, socket, "status").Auto.Switches)
}

// TestAutoRefused: settings that cannot be met, and users who may only look.
func TestAutoRefused(t *testing.T) {
	socket := startWith(t, "well", func(o *Options) { o.DirectQueues = 2 })
	none, many, some, zero := 0, 3, -1, 0.0
	for _, o := range []wire.Auto{{On: true, Queues: &none}, {On: true, Queues: &many}, {Queues: &some}, {On: true, Rate: &zero}} {
		_, err := command[AutoStatus](t, socket, "auto", o)
		require.ErrorContains(t, err, "accepted:")
		var refusal *control.Error
		require.ErrorAs(t, err, &refusal)
		require.EqualValues(t, unix.EINVAL, refusal.Code)
	}
	_, err := command[InstanceStatus](t, socket, "unpin", wire.Target{ID: 7})
	require.ErrorContains(t, err, "no instance 7")
	s := mustAsk[Status](t, socket, "status").Auto
	require.Equal(t, wire.AutoSettings{Queues: 2, Rate: 5000}, s.AutoSettings)
	m := &Monitor{}
	for _, verb := range []string{"auto", "unpin"} {
		_, err := m.answer(t.Context(), t.Context(), control.Peer{UID: 12345}, wire.Ask{Verb: verb, Args: json.RawMessage("{}")}, nil)
		require.ErrorIs(t, err, unix.EPERM)
	}
	o := Options{DirectQueues: 1}
	require.ErrorIs(t, o.checkAuto(&wire.AutoSettings{Queues: 2}), ErrOptions)
}

package modeswitch

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// later waits until the clock shows another time.
func later() {
	for now := sinceStart(); sinceStart() == now; {
	}
}

// TestArrears: frames may have waited since all were taken, not since the last batch.
func TestArrears(t *testing.T) {
	var a arrears
	require.Zero(t, a.age())
	a.found(true)
	first := a.since.Load()
	later()
	require.Positive(t, a.age())
	a.found(true)
	require.Greater(t, a.since.Load(), first, "nothing was left of before")
	a.found(false)
	left := a.since.Load()
	later()
	a.found(false)
	a.found(true)
	require.Equal(t, left, a.since.Load(), "what was left may be what was taken last")
	later()
	a.found(true)
	require.Greater(t, a.since.Load(), left)
	a.found(false)
	a.empty()
	require.Zero(t, a.age())
	a.found(true)
	require.False(t, a.left)
}

// laggard is a network endpoint that takes its time.
type laggard struct {
	null
	in, out chan struct{}
}

func (s laggard) HandlePacket(*stack.PacketBuffer) {
	s.in <- struct{}{}
	<-s.out
}

// TestOldestFrame: while a receiver is at work frames may wait, and no more once it
// has found its queue empty.
func TestOldestFrame(t *testing.T) {
	h := newHost(t, true)
	require.Eventually(t, func() bool { return h.ep.OldestFrame() == 0 }, time.Minute, time.Millisecond)
	s, err := newSink(h.stack, nicID, null{}, true)
	require.NoError(t, err)
	slow := laggard{in: make(chan struct{}), out: make(chan struct{})}
	s.ipv4 = slow
	ours, theirs := backend(true)
	path := newPath(h.ep, ours)
	paths := append(*h.ep.paths.Load(), path)
	h.ep.paths.Store(&paths)
	r := &receiver{e: h.ep, q: path.queues[0], sink: s, batch: make([][]byte, 4)}
	done := make(chan struct{})
	go func() { defer close(done); r.run() }()
	require.NoError(t, theirs.Inject(vnet(0, udpFrame(10))))
	<-slow.in
	before := h.ep.OldestFrame()
	require.Positive(t, before)
	later()
	require.Greater(t, h.ep.OldestFrame(), before)
	close(slow.out)
	require.Eventually(t, func() bool { return h.ep.OldestFrame() == 0 }, time.Minute, time.Millisecond)
	path.stopped.Store(true)
	theirs.Close()
	path.queues[0].Wake()
	<-done
}

package monitor

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/direct/steer/scope"
	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/portmap"
	"junction/portmap/table"
	"junction/switch/protocol"
)

// outcome is an order's.
type outcome struct {
	r   wire.SwitchResult
	err error
}

// waiting orders a switch to direct mode and waits for a queue, until gone is called.
func waiting(t *testing.T, socket string, id uint32) (done <-chan outcome, gone func()) {
	t.Helper()
	o, err := client.DialOperator(t.Context(), socket)
	require.NoError(t, err)
	ch := make(chan outcome, 1)
	go func() {
		defer o.Close()
		r, err := o.Switch(context.Background(), wire.SwitchOrder{Target: wire.Target{ID: id}, Mode: protocol.Direct, Wait: true})
		ch <- outcome{r, err}
	}()
	t.Cleanup(o.Close)
	return ch, o.Close
}

// switching is what the status says of an instance's switch.
func switching(t *testing.T, socket string, id uint32) string {
	for _, i := range mustAsk[Status](t, socket, "status").Instances {
		if i.ID == id {
			return i.Switching
		}
	}
	return "no such instance"
}

func awaitSwitching(t *testing.T, socket string, id uint32, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return switching(t, socket, id) == want }, 30*time.Second, time.Millisecond)
}

// TestSwitchLine: who waits for a queue gets it in the order of having come, but for
// those who are gone meanwhile.
func TestSwitchLine(t *testing.T) {
	f := newFakeFabric(1)
	socket := startWith(t, "well", func(o *Options) { o.fabric = f })
	var ids []uint32
	for n := range 4 {
		i := join(t, socket, fmt.Sprint("i", n))
		t.Cleanup(answers(i))
		ids = append(ids, i.Lease().ID)
	}
	r, err := orderSwitch(t, socket, ids[0], protocol.Direct, false)
	require.NoError(t, err)
	require.Empty(t, r.Reason)
	const waits = "to direct: waits for a queue"
	var done []<-chan outcome
	var gone []func()
	for _, id := range ids[1:] {
		d, g := waiting(t, socket, id)
		done, gone = append(done, d), append(gone, g)
		awaitSwitching(t, socket, id, waits)
	}
	gone[0]()
	require.Error(t, (<-done[0]).err)
	awaitSwitching(t, socket, ids[1], "")
	for n, holder := range []uint32{ids[0], ids[2]} {
		_, err := orderSwitch(t, socket, holder, protocol.Server, false)
		require.NoError(t, err)
		o := <-done[n+1]
		require.NoError(t, o.err)
		require.Equal(t, protocol.Direct, o.r.Mode)
		require.Empty(t, o.r.Reason)
	}
}

// TestSwitchWaitsForAnother: an order that waits is carried out when the switch under
// way has ended, also if it does not take a queue.
func TestSwitchWaitsForAnother(t *testing.T) {
	f := newFakeFabric(1)
	socket := startWith(t, "well", func(o *Options) { o.fabric = f })
	i := join(t, socket, "one")
	id := i.Lease().ID
	first := make(chan error, 1)
	go func() { _, err := orderSwitch(t, socket, id, protocol.Direct, false); first <- err }()
	awaitSwitching(t, socket, id, "to direct: prepare")
	for _, to := range []protocol.Mode{protocol.Direct, protocol.Server} {
		_, err := orderSwitch(t, socket, id, to, false)
		require.ErrorContains(t, err, "is under way")
	}
	second := make(chan outcome, 1)
	go func() {
		r, err := orderSwitch(t, socket, id, protocol.Server, true)
		second <- outcome{r, err}
	}()
	defer answers(i)()
	require.NoError(t, <-first)
	o := <-second
	require.NoError(t, o.err)
	require.Equal(t, protocol.Server, o.r.Mode)
	queues, _ := f.state(id)
	require.Zero(t, queues)
}

// slowFabric has queues that take their time to end.
type slowFabric struct {
	*fakeFabric
	ends chan struct{} // closed: they do
}

type slowQueue struct {
	directQueue
	f *slowFabric
}

func (f *slowFabric) NewQueue(ctx context.Context, owner uint32, ports *scope.Ports) (directQueue, error) {
	q, err := f.fakeFabric.NewQueue(ctx, owner, ports)
	if err != nil {
		return nil, err
	}
	return slowQueue{q, f}, nil
}

func (q slowQueue) Close() error {
	<-q.f.ends
	return q.directQueue.Close()
}

// TestSwitchQueueEndsSlowly: meanwhile others are switched, and told how it is; the
// instance has its next queue when the last has ended.
func TestSwitchQueueEndsSlowly(t *testing.T) {
	f := &slowFabric{newFakeFabric(2), make(chan struct{})}
	socket := startWith(t, "well", func(o *Options) { o.fabric = f })
	one, two := join(t, socket, "one"), join(t, socket, "two")
	defer answers(one)()
	defer answers(two)()
	a, b := one.Lease().ID, two.Lease().ID
	_, err := orderSwitch(t, socket, a, protocol.Direct, false)
	require.NoError(t, err)
	back := make(chan outcome, 1)
	go func() {
		r, err := orderSwitch(t, socket, a, protocol.Server, false)
		back <- outcome{r, err}
	}()
	require.Eventually(t, func() bool {
		s := mustAsk[Status](t, socket, "status").Instances[0]
		return s.Mode == "server" && s.LastSwitch.To == protocol.Server
	}, 30*time.Second, time.Millisecond)
	r, err := orderSwitch(t, socket, b, protocol.Direct, false)
	require.NoError(t, err)
	require.Equal(t, protocol.Direct, r.Mode)
	again := make(chan outcome, 1)
	go func() {
		r, err := orderSwitch(t, socket, a, protocol.Direct, false)
		again <- outcome{r, err}
	}()
	awaitSwitching(t, socket, a, "to direct: make")
	require.Empty(t, back, "the order is answered when the queue is free")
	close(f.ends)
	for _, o := range []outcome{<-back, <-again} {
		require.NoError(t, o.err)
		require.Equal(t, o.r.To, o.r.Mode)
	}
}

// TestSwitchOrLimit: an instance on its way to direct mode cannot be limited.
func TestSwitchOrLimit(t *testing.T) {
	f := newFakeFabric(1)
	socket := startWith(t, "well", func(o *Options) { o.fabric = f })
	i := join(t, socket, "one")
	id, rate := i.Lease().ID, uint64(1000)
	done := make(chan error, 1)
	go func() { _, err := orderSwitch(t, socket, id, protocol.Direct, false); done <- err }()
	awaitSwitching(t, socket, id, "to direct: prepare")
	o, err := client.DialOperator(t.Context(), socket)
	require.NoError(t, err)
	defer o.Close()
	require.ErrorContains(t, o.Ask(t.Context(), "limit", wire.Limit{ID: id, Rate: &rate}, &InstanceStatus{}), "about to be")
	defer answers(i)()
	require.NoError(t, <-done)
	require.Zero(t, mustAsk[Status](t, socket, "status").Instances[0].Rate)
}

// TestSwitchLateAnswers: an instance that answers too late, whatever it was last told, is
// in the mode that was said, and can be switched again.
func TestSwitchLateAnswers(t *testing.T) {
	kinds := []protocol.Kind{protocol.Prepare, protocol.Align, protocol.Move, protocol.Finish}
	for n, last := range kinds {
		f := newFakeFabric(1)
		var late atomic.Int64
		late.Store(int64(n) + int64(protocol.Preparing))
		short := func(s protocol.Step) time.Duration {
			if s == protocol.Step(late.Load()) || s == protocol.Aborting {
				return time.Millisecond
			}
			return time.Minute
		}
		socket := startWith(t, "well", func(o *Options) { o.fabric, o.StepTime = f, short })
		i := join(t, socket, "one")
		id := i.Lease().ID
		held := make(chan client.Switch, 8)
		stop := answersBut(i, held, last, protocol.Abort)
		r, err := orderSwitch(t, socket, id, protocol.Direct, false)
		require.NoError(t, err)
		require.NotEmpty(t, r.Reason)
		_, err = orderSwitch(t, socket, id, protocol.Direct, false)
		require.ErrorContains(t, err, "does not answer")
		unread := map[bool]int{true: 1, false: 2}[last == protocol.Finish] // Abort follows the others
		require.Eventually(t, func() bool { return len(held) == unread }, 30*time.Second, time.Millisecond)
		stop()
		for len(held) > 0 {
			s := <-held
			require.NoError(t, i.SendSwitch(wire.Switch{Message: protocol.Message{Kind: answerTo[s.Kind], Epoch: s.Epoch}}))
		}
		awaitSwitching(t, socket, id, "")
		now := mustAsk[Status](t, socket, "status").Instances[0]
		require.Equal(t, r.Mode.String(), now.Mode)
		queues, steered := f.state(id)
		require.Equal(t, r.Mode == protocol.Direct, queues == 1)
		require.Equal(t, r.Mode == protocol.Direct, steered)
		late.Store(0) // from now on it has time enough
		stop = answers(i)
		for _, to := range []protocol.Mode{1 - r.Mode, r.Mode} {
			r, err := orderSwitch(t, socket, id, to, false)
			require.NoError(t, err)
			require.Equal(t, to, r.Mode)
		}
		stop()
	}
}

// TestBindTooLate: a port that is given when nobody waits for it any more is free again.
func TestBindTooLate(t *testing.T) {
	socket := start(t, "well")
	i := join(t, socket, "one")
	failed := 0
	for n := range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n)*2*time.Microsecond)
		s, _, err := i.Bind(ctx, table.TCP, netip.IPv4Unspecified(), 0, portmap.ForBind, false)
		cancel()
		if err == nil {
			require.NoError(t, i.Release(t.Context(), s))
			continue
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		failed++
	}
	require.NotZero(t, failed)
	require.Eventually(t, func() bool { return len(mustAsk[[]PortStatus](t, socket, "ports")) == 0 }, 30*time.Second, time.Millisecond)
}

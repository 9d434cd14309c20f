package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/direct"
	"junction/direct/steer"
	"junction/direct/steer/scope"
	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/ipc/control"
	"junction/switch/protocol"
)

// fakeFabric has a number of queues, which do nothing.
type fakeFabric struct {
	mu     sync.Mutex
	free   int
	queues map[uint32]*fakeQueue
	to     map[uint32]bool // steered to the queue
	stamps map[uint32]uint8
	probes int
	gone   bool // the queues' devices are deleted
}

func newFakeFabric(free int) *fakeFabric {
	return &fakeFabric{free: free, queues: make(map[uint32]*fakeQueue), to: make(map[uint32]bool), stamps: make(map[uint32]uint8)}
}

type fakeQueue struct {
	f     *fakeFabric
	owner uint32
	ports *scope.Ports
}

func (f *fakeFabric) NewQueue(_ context.Context, owner uint32, ports *scope.Ports) (directQueue, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.free == 0 {
		return nil, fmt.Errorf("%w: all are in use", steer.ErrNoVF)
	}
	f.free--
	f.queues[owner] = &fakeQueue{f, owner, ports}
	return f.queues[owner], nil
}

func (f *fakeFabric) QueueOf(uint32) directQueue { return nil }

func (f *fakeFabric) Stamp(owner uint32, tag uint8) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stamps[owner] = tag
	return nil
}

func (f *fakeFabric) SteerTo(owner uint32, q directQueue) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q != nil && f.queues[owner] == nil {
		return errors.New("there is no such queue")
	}
	f.to[owner] = q != nil
	return nil
}

// Export describes a queue that nobody can use.
func (q *fakeQueue) Export() (direct.Export, []int) { return direct.Export{NIC: "none"}, nil }

func (q *fakeQueue) Ports() *scope.Ports { return q.ports }

func (q *fakeQueue) Probe([]byte) error {
	q.f.mu.Lock()
	defer q.f.mu.Unlock()
	q.f.probes++
	if q.f.gone {
		return unix.ENXIO
	}
	return nil
}

func (q *fakeQueue) Stats() (steer.VFStats, error) { return steer.VFStats{Owner: q.owner}, nil }

// Devices are one that is not deleted.
func (q *fakeQueue) Devices() []int { return []int{1, 2} }

func (q *fakeQueue) Close() error {
	q.f.mu.Lock()
	defer q.f.mu.Unlock()
	if q.f.queues[q.owner] == q {
		delete(q.f.queues, q.owner)
		q.f.free++
		q.f.to[q.owner] = false
	}
	return nil
}

// state tells how many queues there are, and whether an instance's frames go to one.
func (f *fakeFabric) state(owner uint32) (queues int, steered bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.queues), f.to[owner]
}

// answerTo is what an instance says to each message.
var answerTo = map[protocol.Kind]protocol.Kind{
	protocol.Prepare: protocol.Prepared, protocol.Align: protocol.Aligned, protocol.Move: protocol.Moved,
	protocol.Finish: protocol.Finished, protocol.Abort: protocol.Aborted,
}

// answers is an instance that says what is expected, but not to some messages.
func answers(i *client.Instance, but ...protocol.Kind) (stop func()) {
	return answersBut(i, make(chan client.Switch, 64), but...)
}

// answersBut is answers; what it does not answer goes to held.
func answersBut(i *client.Instance, held chan<- client.Switch, but ...protocol.Kind) (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case s := <-i.Switches():
				s.Close()
				if slices.Contains(but, s.Kind) {
					held <- s
					continue
				}
				w := wire.Switch{Message: protocol.Message{Kind: answerTo[s.Kind], Epoch: s.Epoch}}
				if s.Kind == protocol.Finish {
					w.Report = &wire.SwitchReport{BlackoutUS: 7}
				}
				_ = i.SendSwitch(w) // the monitor may have ended
			case <-quit:
				return
			}
		}
	})
	return func() {
		close(quit)
		wg.Wait()
	}
}

// orderSwitch asks for a switch.
func orderSwitch(t *testing.T, socket string, id uint32, to protocol.Mode, wait bool) (wire.SwitchResult, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o, err := client.DialOperator(ctx, socket)
	require.NoError(t, err)
	defer o.Close()
	return o.Switch(ctx, wire.SwitchOrder{Target: wire.Target{ID: id}, Mode: to, Wait: wait})
}

// TestSwitchQueues: there and back; without a free queue it is refused by name, or
// waits for one; an instance that ends leaves none.
func TestSwitchQueues(t *testing.T) {
	f := newFakeFabric(1)
	socket := startWith(t, "well", func(o *Options) { o.fabric = f })
	one, two := join(t, socket, "one"), join(t, socket, "two")
	defer answers(one, 0)()
	defer answers(two, 0)()
	a, b := one.Lease().ID, two.Lease().ID

	r, err := orderSwitch(t, socket, a, protocol.Direct, false)
	require.NoError(t, err)
	require.Empty(t, r.Reason)
	require.Equal(t, protocol.Direct, r.Mode)
	require.EqualValues(t, 7, r.BlackoutUS)
	require.NotEmpty(t, r.Steps)
	queues, steered := f.state(a)
	require.Equal(t, 1, queues)
	require.True(t, steered)
	require.Equal(t, "direct", mustAsk[Status](t, socket, "status").Instances[0].Mode)
	again, err := orderSwitch(t, socket, a, protocol.Direct, false)
	require.NoError(t, err)
	require.Empty(t, again.Reason)
	require.Equal(t, protocol.Direct, again.Mode)
	require.Equal(t, &r, mustAsk[Status](t, socket, "status").Instances[0].LastSwitch, "what was not needed is no switch")

	r, err = orderSwitch(t, socket, b, protocol.Direct, false)
	require.NoError(t, err)
	require.True(t, r.NoQueue)
	require.Contains(t, r.Reason, steer.ErrNoVF.Error())
	require.Equal(t, protocol.Server, r.Mode)

	waited := make(chan wire.SwitchResult, 1)
	go func() {
		r, err := orderSwitch(t, socket, b, protocol.Direct, true)
		if err != nil {
			r.Reason = err.Error()
		}
		waited <- r
	}()
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(mustAsk[Status](t, socket, "status").Instances, func(i InstanceStatus) bool {
			return i.ID == b && i.Switching == "to direct: waits for a queue"
		})
	}, 30*time.Second, time.Millisecond)
	r, err = orderSwitch(t, socket, a, protocol.Server, false)
	require.NoError(t, err)
	require.Equal(t, protocol.Server, r.Mode)
	r = <-waited
	require.Empty(t, r.Reason)
	require.Equal(t, protocol.Direct, r.Mode)
	_, err = orderSwitch(t, socket, 99, protocol.Server, false)
	require.ErrorContains(t, err, "no instance 99")
	two.Close()
	require.Eventually(t, func() bool { n, _ := f.state(b); return n == 0 }, 30*time.Second, time.Millisecond)
}

// TestSwitchInterrupted: an instance that ends, whatever it was last told, leaves no
// queue, and who asked is told; meanwhile a second order is refused by name.
func TestSwitchInterrupted(t *testing.T) {
	f := newFakeFabric(8)
	socket := startWith(t, "well", func(o *Options) { o.fabric = f })
	for _, last := range []protocol.Kind{protocol.Prepare, protocol.Align, protocol.Move, protocol.Finish} {
		i := join(t, socket, last.String())
		stop := answers(i, last)
		id := i.Lease().ID
		type outcome struct {
			r   wire.SwitchResult
			err error
		}
		done := make(chan outcome, 1)
		go func() {
			r, err := orderSwitch(t, socket, id, protocol.Direct, false)
			done <- outcome{r, err}
		}()
		require.Eventually(t, func() bool {
			all := mustAsk[Status](t, socket, "status").Instances
			return len(all) == 1 && all[0].Switching == "to direct: "+map[protocol.Kind]string{
				protocol.Prepare: "prepare", protocol.Align: "align", protocol.Move: "move", protocol.Finish: "finish",
			}[last]
		}, 30*time.Second, time.Millisecond)
		_, err := orderSwitch(t, socket, id, protocol.Server, false)
		require.ErrorContains(t, err, "is under way")
		stop()
		i.Close()
		o := <-done
		require.NoError(t, o.err)
		require.Equal(t, "the instance ended", o.r.Reason)
		require.Eventually(t, func() bool { n, _ := f.state(id); return n == 0 }, 30*time.Second, time.Millisecond)
	}
}

// TestSwitchStuck: whoever asked for a switch is told in time though the instance
// does not answer, whatever it was last told. It keeps its queue, for it may use it, and is
// switched no more, until it answers or ends.
func TestSwitchStuck(t *testing.T) {
	f := newFakeFabric(8)
	var stuck atomic.Int64 // the step; others have time enough
	socket := startWith(t, "well", func(o *Options) {
		o.fabric = f
		o.StepTime = func(s protocol.Step) time.Duration {
			if s == protocol.Aborting || s == protocol.Step(stuck.Load()) {
				return time.Millisecond
			}
			return time.Minute
		}
	})
	for last, step := range map[protocol.Kind]protocol.Step{
		protocol.Prepare: protocol.Preparing, protocol.Align: protocol.Aligning,
		protocol.Move: protocol.Moving, protocol.Finish: protocol.Finishing,
	} {
		stuck.Store(int64(step))
		i := join(t, socket, last.String())
		stop := answers(i, last, protocol.Abort)
		id := i.Lease().ID
		r, err := orderSwitch(t, socket, id, protocol.Direct, false)
		require.NoError(t, err)
		if last == protocol.Finish {
			require.Contains(t, r.Reason, "does not confirm the switch")
		} else {
			require.Contains(t, r.Reason, step.String()+" took too long")
		}
		queues, steered := f.state(id)
		require.Equal(t, 1, queues)
		require.Equal(t, last == protocol.Finish, steered, "it is in the mode that is told")
		require.Equal(t, r.Mode, map[bool]protocol.Mode{true: protocol.Direct, false: protocol.Server}[steered])
		_, err = orderSwitch(t, socket, id, protocol.Server, false)
		require.ErrorContains(t, err, "does not answer")
		stop()
		i.Close()
		require.Eventually(t, func() bool { n, _ := f.state(id); return n == 0 }, 30*time.Second, time.Millisecond)
	}
}

// TestSwitchQueueGone: an instance whose queue somebody has deleted is told once that it
// goes to server mode, and who ordered that is told in time though it does not answer.
func TestSwitchQueueGone(t *testing.T) {
	f := newFakeFabric(1)
	socket := startWith(t, "well", func(o *Options) {
		o.fabric = f
		o.StepTime = func(s protocol.Step) time.Duration {
			if s == protocol.Aborting {
				return 100 * time.Millisecond
			}
			return time.Minute
		}
	})
	i := join(t, socket, "a")
	stop := answers(i)
	r, err := orderSwitch(t, socket, i.Lease().ID, protocol.Direct, false)
	require.NoError(t, err)
	require.Empty(t, r.Reason)
	stop()
	defer answers(i, protocol.Align, protocol.Abort)()
	f.mu.Lock()
	f.gone, f.probes = true, 0
	f.mu.Unlock()
	r, err = orderSwitch(t, socket, i.Lease().ID, protocol.Server, false)
	require.NoError(t, err)
	require.Contains(t, r.Reason, "the queue is gone")
	require.Equal(t, protocol.Server, r.Mode)
	_, steered := f.state(i.Lease().ID)
	require.False(t, steered)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Less(t, f.probes, 10, "one that showed it, one for the way back, perhaps one too late")
}

// TestSwitchAndLimit: who is limited goes through the network server.
func TestSwitchAndLimit(t *testing.T) {
	f := newFakeFabric(1)
	socket := startWith(t, "well", func(o *Options) { o.fabric = f })
	i := join(t, socket, "one")
	defer answers(i, 0)()
	id := i.Lease().ID
	limit := func(rate uint64) error {
		o, err := client.DialOperator(t.Context(), socket)
		require.NoError(t, err)
		defer o.Close()
		return o.Ask(t.Context(), "limit", wire.Limit{ID: id, Rate: &rate}, &InstanceStatus{})
	}
	require.NoError(t, limit(1000))
	_, err := orderSwitch(t, socket, id, protocol.Direct, false)
	require.ErrorContains(t, err, "--rate 0")
	require.NoError(t, limit(0))
	r, err := orderSwitch(t, socket, id, protocol.Direct, false)
	require.NoError(t, err)
	require.Empty(t, r.Reason)
	require.ErrorContains(t, limit(1000), "in direct mode")
}

// TestSwitchReasonIsText: what an instance gives as a reason is no order to the terminal of
// who asked for the switch, and of a bounded length.
func TestSwitchReasonIsText(t *testing.T) {
	f := newFakeFabric(1)
	socket := startWith(t, "well", func(o *Options) { o.fabric = f })
	i := join(t, socket, "one")
	held := make(chan client.Switch, 8)
	defer answersBut(i, held, protocol.Prepare)()
	go func() {
		s := <-held
		_ = i.SendSwitch(wire.Switch{Message: protocol.Message{Kind: protocol.Refused, Epoch: s.Epoch, Reason: "no\x1b]0;\x07" + strings.Repeat("x", 1<<20)}})
	}()
	r, err := orderSwitch(t, socket, i.Lease().ID, protocol.Direct, false)
	require.NoError(t, err)
	require.Equal(t, "no\ufffd]0;\ufffdx", r.Reason[:len("no\ufffd]0;\ufffdx")])
	require.Less(t, len(r.Reason), 2*control.MaxText)
}

// TestSwitchReturning: while it is not known in which mode an instance is that has come
// back from the monitor before, it is neither switched nor limited. Else the order's
// switch would be forgotten when it is known, and who gave it would wait for ever.
func TestSwitchReturning(t *testing.T) {
	m := &Monitor{opts: Options{fabric: newFakeFabric(0), Logger: slog.New(slog.DiscardHandler)}}
	s := newSwitcher(m, &instance{id: 1, name: "one"})
	s.i.sw, s.returning = s, true
	defer s.gone()
	_, err := s.begin(protocol.Direct, nil, false)
	require.ErrorIs(t, err, unix.EBUSY)
	require.ErrorIs(t, s.setLimit(true, func() { require.Fail(t, "it may be in direct mode") }), unix.EBUSY)
	require.True(t, s.sample().Switching)
	changed := m.switches.next()
	s.resume(&wire.Rejoin{})
	<-changed // orders that wait try again
	require.False(t, s.sample().Switching)
	r, err := s.begin(protocol.Direct, nil, false)
	require.NoError(t, err)
	select {
	case <-r.done:
		require.True(t, r.result.NoQueue)
	case <-time.After(30 * time.Second):
		require.Fail(t, "the switch does not end")
	}
	require.NoError(t, s.setLimit(true, func() {}))
}

// TestSwitchWithoutSteering says what is needed.
func TestSwitchWithoutSteering(t *testing.T) {
	socket := start(t, "well")
	i := join(t, socket, "one")
	r, err := orderSwitch(t, socket, i.Lease().ID, protocol.Direct, false)
	require.NoError(t, err)
	require.Contains(t, r.Reason, "AF_XDP")
	require.Equal(t, protocol.Server, r.Mode)
}

// TestSwitchIsForTheOperator: others may look only.
func TestSwitchIsForTheOperator(t *testing.T) {
	m := &Monitor{}
	args, err := json.Marshal(wire.SwitchOrder{})
	require.NoError(t, err)
	_, err = m.answer(t.Context(), t.Context(), control.Peer{UID: 12345}, wire.Ask{Verb: "switch", Args: args}, nil)
	require.ErrorIs(t, err, unix.EPERM)
}

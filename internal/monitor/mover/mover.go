// Package mover is the instance's side of the mode switch: it carries out what
// its protocol.Participant says, with the link endpoint and the queues that the
// monitor sends.
package mover

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"junction/direct"
	"junction/direct/steer/scope"
	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	modeswitch "junction/switch"
	"junction/switch/protocol"
)

// Lease is what a Mover needs of a client.Instance.
type Lease interface {
	Switches() <-chan client.Switch
	SendSwitch(wire.Switch) error
	SetMode(epoch uint64, direct, switching bool)
}

// Options configures a Mover.
type Options struct {
	Lease Lease
	// Link is the endpoint, whose first path is the ring.
	Link *modeswitch.Endpoint
	// Shared: the instance has the shared addresses, none of its own.
	Shared bool
	Logger *slog.Logger
}

// Times.
const (
	// holdTime is how long a received frame is kept back for one that was sent
	// before it, for that one may be lost, after the last that its path brought. A
	// network server that waits for a processor needs some; three times as long is
	// still less than a TCP sender waits (RFC 6298; Linux: 200 ms).
	holdTime = 50 * time.Millisecond
	// drainTime is how long the old path may take to send what it has, while
	// packets are kept back; on the way back after a failure it is backTime.
	drainTime = time.Second
	backTime  = 100 * time.Millisecond
	// markTime is how long a mark is waited for on the way back.
	markTime = time.Second
)

// Mover switches an instance's mode. Its methods may be called from any goroutine.
type Mover struct {
	o     Options
	tasks sync.WaitGroup
	ctx   context.Context
	stop  context.CancelFunc

	mu sync.Mutex
	// +checklocks:mu
	p protocol.Participant
	// +checklocks:mu
	queue *direct.Export // that Prepare brought, and its files
	// +checklocks:mu
	files []int
	// +checklocks:mu
	ports *scope.Ports // that it is for, nil: all
	// +checklocks:mu
	device direct.Device // nil without a queue
	// +checklocks:mu
	path *modeswitch.Path // over it
	// +checklocks:mu
	report wire.SwitchReport // of the present switch
	// +checklocks:mu
	gone direct.QueueStats // of queues given up
	// waits is the context of waiting for the marks of a switch.
	// +checklocks:mu
	waits context.Context
	// +checklocks:mu
	endWaits context.CancelFunc
}

// Start begins to do what the monitor says.
func Start(o Options) *Mover {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Mover{o: o}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.waits, m.endWaits = context.WithCancel(m.ctx)
	m.tasks.Go(m.run)
	return m
}

func (m *Mover) run() {
	for {
		select {
		case s := <-m.o.Lease.Switches():
			m.receive(&s)
		case <-m.ctx.Done():
			return
		}
	}
}

// Close ends it. The endpoint must have been closed: nothing flows any more.
func (m *Mover) Close() error {
	m.stop()
	m.tasks.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endWaits()
	m.dropFiles()
	m.closeDevice()
	return nil
}

// Mode returns the mode that packets leave by, or are about to.
func (m *Mover) Mode() protocol.Mode {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.p.Mode()
}

// QueueStats counts what passed the queues that the instance has had; without one it
// has no Drops.
func (m *Mover) QueueStats() (sum direct.QueueStats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone.Drops != nil {
		sum.Add(m.gone) // a copy: what is gone is added to later
	}
	if m.device != nil {
		sum.Add(m.device.Stats())
	}
	return sum
}

func (m *Mover) receive(s *client.Switch) {
	defer s.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.Queue != nil && s.Kind == protocol.Prepare {
		m.dropFiles()
		m.queue, m.ports, m.files, s.Files = s.Queue, s.Ports, s.Files, nil
	}
	m.act(m.p.Receive(s.Message))
}

// event tells the Participant something and does what it wants.
func (m *Mover) event(f func(*protocol.Participant) []protocol.Action) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() == nil {
		m.act(f(&m.p))
	}
}

// +checklocks:m.mu
func (m *Mover) act(do []protocol.Action) {
	for _, a := range do {
		m.o.Logger.Debug("mode switch", "epoch", a.Epoch, "do", a.String())
		switch a.Do {
		case protocol.DoSend:
			m.send(a.Message)
		case protocol.DoAdd:
			m.add(a.Mode)
		case protocol.DoRemove:
			m.remove()
		case protocol.DoMerge:
			m.merge(a)
		case protocol.DoEndMerge:
			m.endMerge()
		case protocol.DoAwait:
			m.await(a)
		case protocol.DoStamped:
			m.o.Link.Stamped()
		case protocol.DoDrained:
			if p := m.pathOf(a.Mode); p != nil {
				m.o.Link.Drained(p)
			}
		case protocol.DoMove:
			m.move(a)
		}
	}
	m.o.Lease.SetMode(m.p.Epoch(), m.p.Mode() == protocol.Direct, m.p.Switching())
}

// pathOf is the path of a mode; nil if there is none.
//
// +checklocks:m.mu
func (m *Mover) pathOf(mode protocol.Mode) *modeswitch.Path {
	if mode == protocol.Server {
		return m.o.Link.First()
	}
	return m.path
}

// +checklocks:m.mu
func (m *Mover) send(msg protocol.Message) {
	w := wire.Switch{Message: msg}
	if msg.Kind == protocol.Finished || msg.Kind == protocol.Aborted {
		report := m.report
		w.Report = &report
	}
	if err := m.o.Lease.SendSwitch(w); err != nil {
		// The monitor is gone; the next one goes on from SetMode.
		m.o.Logger.Debug("mode switch: the monitor does not hear", "message", msg.String(), "error", err)
	}
}

// add begins to use the path of a mode; the ring is always there.
//
// +checklocks:m.mu
func (m *Mover) add(mode protocol.Mode) {
	var err error
	if mode == protocol.Direct {
		err = m.adopt()
	}
	m.report = wire.SwitchReport{}
	m.later(func(p *protocol.Participant) []protocol.Action {
		if err != nil {
			return p.PathRefused(err.Error())
		}
		return p.PathAdded()
	})
}

// later tells the Participant something when the present event is done with.
func (m *Mover) later(f func(*protocol.Participant) []protocol.Action) {
	m.tasks.Go(func() { m.event(f) })
}

// +checklocks:m.mu
func (m *Mover) remove() {
	if m.path != nil {
		if err := m.path.Remove(); err != nil {
			m.o.Logger.Error("mode switch: the queue is in use", "error", err) // a mistake of ours
			return
		}
	}
	m.closeDevice()
}

// +checklocks:m.mu
func (m *Mover) closeDevice() {
	if m.device == nil {
		return
	}
	_ = m.device.Close()
	m.gone.Add(m.device.Stats())
	m.device, m.path = nil, nil
}

// +checklocks:m.mu
func (m *Mover) merge(a protocol.Action) {
	old, next := m.o.Link.First(), m.path
	if a.Mode == protocol.Server {
		old, next = next, old
	}
	if err := m.o.Link.Merge(old, next, protocol.Tag(a.Epoch), holdTime); err != nil {
		m.o.Logger.Warn("mode switch: frames of both paths are not put in order", "error", err)
	}
}

// +checklocks:m.mu
func (m *Mover) endMerge() {
	m.endWaits()
	m.waits, m.endWaits = context.WithCancel(m.ctx)
	g := m.o.Link.EndMerge()
	r := &m.report
	r.InFlight, r.Lost, r.Duplicates, r.Reordered, r.HeldRx = g.InFlight, g.Lost, g.Duplicates, g.Reordered, g.Held
	r.BlackoutUS = max(r.BlackoutUS, micros(g.Longest))
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// await waits for a mark.
//
// +checklocks:m.mu
func (m *Mover) await(a protocol.Action) {
	path := m.pathOf(a.Mode)
	ctx, cancel := context.WithCancel(m.waits)
	m.tasks.Go(func() {
		defer cancel()
		if a.Mark == protocol.MarkBack {
			var end context.CancelFunc
			ctx, end = context.WithTimeout(ctx, markTime)
			defer end()
		}
		if path != nil && path.AwaitProbe(ctx, a.Mark.Nonce(a.Epoch)) == nil {
			m.event(func(p *protocol.Participant) []protocol.Action { return p.MarkSeen(a.Epoch, a.Mark) })
			return
		}
		if a.Mark == protocol.MarkBack {
			m.event(func(p *protocol.Participant) []protocol.Action {
				if p.Epoch() != a.Epoch {
					return nil
				}
				return p.GiveUp()
			})
		}
	})
}

// move makes packets leave by another path.
//
// +checklocks:m.mu
func (m *Mover) move(a protocol.Action) {
	to := m.pathOf(a.Mode)
	limit := drainTime
	if a.Force {
		limit = backTime
	}
	m.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(m.ctx, limit)
		defer cancel()
		moved, err := m.o.Link.Move(ctx, to, a.Force)
		m.mu.Lock()
		m.report.BlackoutUS = max(m.report.BlackoutUS, micros(moved.Held))
		m.report.HeldTx += uint64(moved.Packets)
		m.mu.Unlock()
		m.event(func(p *protocol.Participant) []protocol.Action {
			if err != nil {
				return p.EgressStuck(err.Error())
			}
			return p.EgressMoved()
		})
	})
}

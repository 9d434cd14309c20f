package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"junction/direct/steer"
	"junction/internal/monitor/wire"
	modeswitch "junction/switch"
	"junction/switch/protocol"
)

// stepTime is how long a step of a switch may take: long for a machine that has
// too much to do, for packets flow all the time.
const stepTime = 10 * time.Second

// act does one thing.
//
// +checklocks:s.mu
func (s *switcher) act(a protocol.Action) error {
	id := uint32(s.i.id)
	switch a.Do {
	case protocol.DoSend:
		return s.send(a.Message)
	case protocol.DoMake:
		return s.make()
	case protocol.DoDrop:
		s.drop()
	case protocol.DoStamp:
		return s.steer(func(f fabric) error { return f.Stamp(id, protocol.Tag(a.Epoch)) })
	case protocol.DoUnstamp:
		if s.queue != nil {
			return s.steer(func(f fabric) error { return f.Stamp(id, 0) })
		}
	case protocol.DoSteer:
		if s.queue != nil { // else nothing is steered but to the server
			return s.steer(func(f fabric) error {
				if a.Mode == protocol.Direct {
					return f.SteerTo(id, s.queue)
				}
				return f.SteerTo(id, nil)
			})
		}
	case protocol.DoMark:
		s.mark(a)
	case protocol.DoTimer:
		s.setTimer()
	case protocol.DoNoTimer:
		s.turn++
	case protocol.DoReport:
		s.report(a)
	}
	return nil
}

func (s *switcher) steer(f func(fabric) error) error {
	fab, err := s.m.fabric()
	if err != nil {
		return err
	}
	return f(fab)
}

// sendTime is how long an instance may be in the way of a message. Few are on
// their way at once: the socket holds them all.
const sendTime = time.Second

// +checklocks:s.mu
func (s *switcher) send(m protocol.Message) error {
	ctx, cancel := context.WithTimeout(s.ctx, sendTime)
	defer cancel()
	v := wire.Switch{Message: m}
	var files []int
	if m.Kind == protocol.Prepare && m.To == protocol.Direct {
		e, fds := s.queue.Export()
		v.Queue, v.Ports, files = &e, s.queue.Ports(), fds
	}
	if err := wire.Send(ctx, s.i.conn, 0, wire.TypeSwitch, v, files...); err != nil {
		return fmt.Errorf("tell the instance: %w", err)
	}
	return nil
}

// make makes a queue, which takes some milliseconds.
//
// +checklocks:s.mu
func (s *switcher) make() error {
	f, err := s.m.fabric()
	if err != nil {
		return err
	}
	ports := s.ports
	before := s.freed
	s.tasks.Go(func() {
		if before != nil {
			<-before // an instance has one queue at a time
		}
		q, err := f.NewQueue(s.ctx, uint32(s.i.id), ports)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			if s.noQueue = errors.Is(err, steer.ErrNoVF); !s.noQueue {
				s.m.line.changed() // it was another's for a moment
			}
			s.tell(func(c *protocol.Coordinator) []protocol.Action { return c.Failed(err.Error()) })
			return
		}
		s.queue, s.lost = q, false
		s.tell((*protocol.Coordinator).QueueMade)
	})
	return nil
}

// drop ends the queue, which takes some milliseconds; nobody else waits for that.
//
// +checklocks:s.mu
func (s *switcher) drop() {
	q := s.queue
	if q == nil {
		return
	}
	freed := make(chan struct{})
	s.queue, s.freed = nil, freed
	if s.run != nil {
		s.run.freed = freed
	}
	s.tasks.Go(func() {
		if err := q.Close(); err != nil {
			s.m.opts.Logger.Warn("direct queue not ended cleanly", "id", s.i.id, "name", s.i.name, "error", err)
		}
		close(freed)
		s.m.line.changed()
	})
}

// A mark is sent again, for a frame may be lost, and a later mark says the same:
// first after markAgain, because an instance that is about to use a queue has put
// no memory into it yet, and then after twice as long each time, up to markRarely.
const (
	markAgain  = 2 * time.Millisecond
	markRarely = 100 * time.Millisecond
)

// mark sends a mark, behind what the NIC's program is about to pass on, until the
// step is over.
//
// +checklocks:s.mu
func (s *switcher) mark(a protocol.Action) {
	q, step := s.queue, s.c.Step()
	s.tasks.Go(func() {
		for again := markAgain; ; again = min(2*again, markRarely) {
			err := s.sendMark(a, q)
			// On the way back there is nothing else to do than to wait for the next server.
			if err != nil && (step != protocol.Aborting || a.Mode == protocol.Direct && (q == nil || errors.Is(err, unix.ENXIO))) {
				s.failedMark(a, step, err)
				return
			}
			select {
			case <-time.After(again):
			case <-s.ctx.Done():
				return
			}
			s.mu.Lock()
			over := s.c.Epoch() != a.Epoch || s.c.Step() != step
			s.mu.Unlock()
			if over {
				return
			}
		}
	})
}

// failedMark says that a mark cannot be sent, unless its step is over.
func (s *switcher) failedMark(a protocol.Action, step protocol.Step, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c.Epoch() != a.Epoch || s.c.Step() != step {
		return
	}
	if a.Mode == protocol.Direct && errors.Is(err, unix.ENXIO) && s.queue != nil {
		s.queueLost() // somebody has deleted the device
		return
	}
	s.tell(func(c *protocol.Coordinator) []protocol.Action {
		return c.Failed(fmt.Sprintf("mark %d by the %v path: %v", a.Mark, a.Mode, err))
	})
}

func (s *switcher) sendMark(a protocol.Action, q directQueue) error {
	mac, err := net.ParseMAC(s.m.server.uplink().MAC)
	if err != nil || len(mac) != 6 {
		return fmt.Errorf("the uplink's address is unknown: %w", err)
	}
	frame := modeswitch.Probe([6]byte(mac), a.Mark.Nonce(a.Epoch))
	if a.Mark != protocol.MarkProbe {
		steer.Await() // what was decided before is in the path's queues then
	}
	if a.Mode == protocol.Direct {
		if q == nil {
			return errors.New("there is no queue")
		}
		return q.Probe(frame)
	}
	args, err := json.Marshal(wire.Mark{ID: uint32(s.i.id), Frame: frame})
	if err != nil {
		return err
	}
	_, err = s.m.askServer(s.ctx, wire.Ask{Verb: "mark", Args: args})
	return err
}

// +checklocks:s.mu
func (s *switcher) setTimer() {
	s.turn++
	turn := s.turn
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(s.limit(), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.turn == turn {
			s.tell((*protocol.Coordinator).Timeout)
		}
	})
}

// limit is how long the present step may take.
//
// +checklocks:s.mu
func (s *switcher) limit() time.Duration {
	if f := s.m.opts.StepTime; f != nil {
		return f(s.c.Step())
	}
	return stepTime
}

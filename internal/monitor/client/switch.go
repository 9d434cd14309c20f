package client

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"junction/internal/monitor/wire"
	"junction/ipc/control"
)

// Switch is a message of the monitor's about the mode, with the files of a queue
// if it brings one. They are the receiver's.
type Switch struct {
	wire.Switch
	Files []int
}

// Close closes the files.
func (s *Switch) Close() {
	for _, f := range s.Files {
		_ = unix.Close(f)
	}
	s.Files = nil
}

// maxMoves is how many messages about the mode may be on their way; the monitor
// waits for an answer to nearly each.
const maxMoves = 64

// move passes a message on, in order. One too many is lost: the monitor counts
// on no answer.
func (c *caller) move(env *control.Envelope) {
	defer env.Close()
	var s Switch
	if wire.Decode(env, wire.TypeSwitch, &s.Switch) != nil {
		return
	}
	s.Files, env.Files = env.Files, nil
	select {
	case c.moves <- s:
	default:
		s.Close()
	}
}

// Switches delivers what the monitor says about the mode, whichever monitor it
// is at the time. It is never closed.
func (i *Instance) Switches() <-chan Switch { return i.moves }

// sendTime is how long the monitor may take to take a message.
const sendTime = 5 * time.Second

// SendSwitch tells the present monitor about the mode. Without one it is lost:
// the next one asks (SetMode).
func (i *Instance) SendSwitch(w wire.Switch) error {
	ctx, cancel := context.WithTimeout(context.Background(), sendTime)
	defer cancel()
	c, _ := i.current()
	return wire.Send(ctx, c.conn, 0, wire.TypeSwitch, w)
}

// SetMode sets what a monitor's successor is told: wire.Rejoin's Epoch, Direct and Switching.
func (i *Instance) SetMode(epoch uint64, direct, switching bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.epoch, i.direct, i.switching = epoch, direct, switching
}

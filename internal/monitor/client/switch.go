package client

import (
	"context"
	"sync"
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
	done  func()
}

// Close closes the files, and says that what the message brought about has been told
// with SetMode. It must be called once.
func (s *Switch) Close() {
	for _, f := range s.Files {
		_ = unix.Close(f)
	}
	s.Files = nil
	s.done()
}

// maxMoves is how many messages about the mode may be on their way; the monitor
// waits for an answer to nearly each.
const maxMoves = 64

// move passes a message on, in order. One too many is lost: the monitor counts
// on no answer.
func (i *Instance) move(env *control.Envelope) {
	defer env.Close()
	s := Switch{done: i.unread.done}
	if wire.Decode(env, wire.TypeSwitch, &s.Switch) != nil {
		return
	}
	s.Files, env.Files = env.Files, nil
	i.unread.add()
	select {
	case i.moves <- s:
	default:
		s.Close()
	}
}

// unread counts messages that have come and not been closed. The zero value is ready.
type unread struct {
	mu sync.Mutex
	// +checklocks:mu
	n int
	// +checklocks:mu
	none chan struct{} // closed when n is 0; nil: nobody waits
}

func (u *unread) add() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n++
}

func (u *unread) done() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n--; u.n == 0 && u.none != nil {
		close(u.none)
		u.none = nil
	}
}

// wait waits until there are none, not for ever.
func (u *unread) wait(ctx context.Context) {
	u.mu.Lock()
	if u.n == 0 {
		u.mu.Unlock()
		return
	}
	if u.none == nil {
		u.none = make(chan struct{})
	}
	none := u.none
	u.mu.Unlock()
	select {
	case <-none:
	case <-ctx.Done():
	case <-time.After(readTime):
	}
}

// readTime is how long the next monitor waits for what the last one has said to be done.
const readTime = time.Second

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

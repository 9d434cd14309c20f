package monitor

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// followAgain is how long the monitor waits when the kernel's messages have ended, as
// when there were more than it has room for.
const followAgain = 100 * time.Millisecond

// watchLinks sees devices of queues that somebody deletes, until ctx is done: whose
// queue it is goes to server mode.
func (m *Monitor) watchLinks(ctx context.Context) {
	for warned := false; ; {
		err := m.followLinks(ctx)
		if err != nil && !warned {
			m.opts.Logger.Warn("that a queue's device is deleted is not noticed at once", "error", err)
			warned = true
		}
		select {
		case <-time.After(followAgain):
		case <-ctx.Done():
			return
		}
	}
}

// followLinks follows the kernel's messages until they end, and looks for what was
// deleted before. Error: there are none.
func (m *Monitor) followLinks(ctx context.Context) error {
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return err
	}
	over := context.AfterFunc(ctx, func() { close(done) })
	defer func() {
		if over() {
			close(done)
		}
	}()
	m.devicesGone(linkGone)
	for u := range updates {
		if u.Header.Type == unix.RTM_DELLINK {
			m.devicesGone(func(index int) bool { return index == int(u.Index) })
		}
	}
	return nil
}

// linkGone tells whether there is no device of that number.
func linkGone(index int) bool {
	var none netlink.LinkNotFoundError
	_, err := netlink.LinkByIndex(index)
	return index == 0 || errors.As(err, &none)
}

// devicesGone tells switches whose queue has a device that is gone.
func (m *Monitor) devicesGone(gone func(index int) bool) {
	for _, i := range m.present() {
		i.sw.mu.Lock()
		if q := i.sw.queue; q != nil && slices.ContainsFunc(q.Devices(), gone) {
			i.sw.queueLost()
		}
		i.sw.mu.Unlock()
	}
}

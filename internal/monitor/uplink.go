package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"junction/direct"
	"junction/direct/steer"
	"junction/portmap"
	"junction/portmap/table"
)

// uplink is the NIC as the monitor holds it: with AF_XDP, the steering program and
// the sockets are the monitor's, and network servers come and go as their users.
// A NIC that takes another driver each network server opens by itself.
type uplink struct {
	m *Monitor

	before atomic.Pointer[direct.Channels] // the NIC's, of the first monitor's time

	mu sync.Mutex
	// tables are what the steering program looks up; nil: there is none.
	// +checklocks:mu
	tables *table.Maps
	// +checklocks:mu
	nic *steer.Uplink // nil: not open, or not the monitor's
	// +checklocks:mu
	used bool // a network server has had the queues
	// +checklocks:mu
	lost bool // direct queues have ended that instances may still have
}

// brought is what a network server brings from the monitor before.
type brought struct {
	view   *os.File
	uplink *direct.Export // nil: it opened its uplink itself
	files  []int          // steer.TakeOver's
}

func (b *brought) close() {
	_ = b.view.Close()
	closeAll(b.files)
}

// steers tells whether the NIC may be one that is steered.
func (u *uplink) steers() bool {
	driver := u.m.opts.Uplink.Driver
	return driver == "" || driver == "afxdp"
}

// begin makes the tables, or takes them over with what a network server brought.
// Without privileges, and with a NIC that is not steered, there are none.
func (u *uplink) begin(ctx context.Context, g table.Geometry, b *brought) *table.Maps {
	u.mu.Lock()
	defer u.mu.Unlock()
	if b != nil && b.uplink != nil {
		u.takeOver(ctx, g, b)
	}
	if u.tables == nil && u.steers() {
		var err error
		if u.tables, err = table.CreateMaps(g); err != nil {
			u.m.opts.Logger.Warn("no direct mode: the tables of the steering program cannot be made", "error", err)
		}
	}
	return u.tables
}

// takeOver continues the uplink of the monitor before.
//
// +checklocks:u.mu
func (u *uplink) takeOver(ctx context.Context, g table.Geometry, b *brought) {
	files := b.files
	b.files = nil
	nic, err := steer.TakeOver(ctx, u.options(), *b.uplink, files)
	if err == nil && nic.Tables().Geometry != g {
		err = errors.Join(fmt.Errorf("its tables have other sizes"), nic.Close(), nic.Tables().Close())
	}
	if err != nil {
		u.m.opts.Logger.Error("the uplink cannot be taken over; a new network server opens it again", "error", err)
		u.m.server.kill("its uplink cannot be taken over")
		return
	}
	u.nic, u.tables, u.used = nic, nic.Tables(), true
}

func (u *uplink) options() steer.Options {
	s := u.m.opts.Uplink
	return steer.Options{
		Options: direct.Options{NIC: s.NIC, Queues: s.Queues, MTU: s.MTU, MAC: s.HardwareAddr(), Before: u.before.Load(), NoOutlet: u.m.opts.NoOutlets, Logger: u.m.opts.Logger},
		Tables:  u.tables, VFs: u.m.opts.DirectQueues,
	}
}

// forServer returns what the next network server is to use, with files of its own;
// nil if it is to open the NIC itself.
func (u *uplink) forServer(ctx context.Context) (*direct.Export, []int, error) {
	defer u.tellLost()
	u.mu.Lock()
	before := u.nic
	defer func() {
		lost, opened := before != nil && u.nic != before, u.nic != nil && u.nic != before
		u.mu.Unlock()
		if opened {
			u.m.mu.Lock()
			u.m.save() // the NIC's queues
			u.m.mu.Unlock()
		}
		if lost {
			u.m.queuesLost()
		}
	}()
	if err := u.open(ctx); u.nic == nil || err != nil {
		return nil, nil, err
	}
	e, queues := u.nic.Export()
	files, err := duplicate(append(u.nic.Keep(), queues...))
	if err != nil {
		return nil, nil, err
	}
	u.used = true
	return &e, files, nil
}

// open opens the NIC, again if it has been deleted meanwhile or its sockets cannot
// be used a second time.
//
// +checklocks:u.mu
func (u *uplink) open(ctx context.Context) error {
	if u.nic != nil {
		e, _ := u.nic.Export()
		err := u.nic.Check()
		if err == nil && u.used && e.Queues[0].ZeroCopy {
			// The driver has chunks of which nobody knows any more.
			err = u.nic.Renew(ctx)
		}
		if err == nil {
			return nil
		}
		u.drop()
	}
	if u.tables == nil {
		return nil
	}
	nic, err := steer.Open(ctx, u.options())
	switch {
	case err == nil:
		u.nic, u.used = nic, false
		u.before.Store(nic.Before())
		return nil
	case u.m.opts.Uplink.Driver == "" && (errors.Is(err, direct.ErrUnsupported) || errors.Is(err, direct.ErrMTU)):
		u.m.opts.Logger.Warn("no direct mode", "error", err)
		return nil
	}
	return err
}

// drop gives the NIC up, with all VFs.
//
// +checklocks:u.mu
func (u *uplink) drop() {
	if u.nic == nil {
		return
	}
	if err := u.nic.Close(); err != nil {
		u.m.opts.Logger.Warn("the uplink is not all gone", "error", err)
	}
	u.nic, u.lost = nil, true
}

// renew makes new queues for the next network server: the last could not use them.
func (u *uplink) renew(ctx context.Context) {
	u.mu.Lock()
	if u.nic != nil && u.used {
		u.used = false
		if err := u.nic.Renew(ctx); err != nil {
			u.m.opts.Logger.Error("the uplink is opened again", "error", err)
			u.drop()
		}
	}
	u.mu.Unlock()
	u.tellLost()
}

// tellLost tells instances whose queues have ended with the NIC. The lock must not
// be held.
func (u *uplink) tellLost() {
	u.mu.Lock()
	lost := u.lost
	u.lost = false
	u.mu.Unlock()
	if lost {
		u.m.queuesLost()
	}
}

// left ends the VF of an instance that has left, if it had one.
func (u *uplink) left(id portmap.Instance) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.nic == nil {
		return
	}
	if v := u.nic.Of(uint32(id)); v != nil {
		if err := v.Close(); err != nil {
			u.m.opts.Logger.Warn("a direct queue is not all gone", "id", id, "error", err)
		}
		u.m.line.changed()
	}
}

// orphans ends the VFs of instances that did not come back.
func (u *uplink) orphans(alive func(portmap.Instance) bool) {
	u.mu.Lock()
	nic := u.nic
	u.mu.Unlock()
	if nic == nil {
		return
	}
	for _, v := range nic.VFs() {
		if id := portmap.Instance(v.Owner()); !alive(id) {
			u.left(id)
		}
	}
}

// steering returns the NIC, to make VFs of. Error: direct.ErrUnsupported.
func (u *uplink) steering() (*steer.Uplink, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.nic == nil {
		return nil, fmt.Errorf("direct mode on %s: %w: the NIC is not served by AF_XDP sockets of the monitor's", u.m.opts.Uplink.NIC, direct.ErrUnsupported)
	}
	return u.nic, nil
}

// stats returns the counters of all VFs.
func (u *uplink) stats() []steer.VFStats {
	all := []steer.VFStats{}
	nic, err := u.steering()
	if err != nil {
		return all
	}
	for _, v := range nic.VFs() {
		if s, err := v.Stats(); err == nil {
			all = append(all, s)
		}
	}
	return all
}

func (u *uplink) close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.drop()
	if u.tables == nil {
		return nil
	}
	err := u.tables.Close()
	u.tables = nil
	return err
}

// duplicate returns further descriptors of files.
func duplicate(fds []int) (dups []int, err error) {
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeAll(dups)
			return nil, fmt.Errorf("duplicate a descriptor: %w", err)
		}
		dups = append(dups, dup)
	}
	return dups, nil
}

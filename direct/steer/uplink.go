package steer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"junction/direct"
	"junction/direct/afxdp"
	"junction/direct/internal/nic"
	"junction/portmap/table"
)

// Options are the parameters of Open.
type Options struct {
	// Options are of the uplink; the driver is AF_XDP.
	direct.Options
	// Tables say who owns what. They stay the caller's, and its to write.
	Tables *table.Maps
	// VFs is how many VFs there may be at once; 0 means DefaultVFs.
	VFs int
}

// DefaultVFs is how many VFs an uplink has unless told otherwise, MaxVFs how many
// it can have.
const (
	DefaultVFs = 8
	MaxVFs     = 1024
)

// Uplink is a NIC with the steering program and a socket on each queue. Its
// methods may be called from any goroutine, those that make or end devices in the
// NIC's network namespace.
type Uplink struct {
	nic     *afxdp.NIC
	objects *objects
	tables  *table.Maps
	// ownsTables: nobody else closes them, while it is taken over.
	ownsTables bool
	noOutlets  bool
	spare      spare

	life   sync.RWMutex // read-locked while a VF is made
	closed bool         // with life locked

	mu sync.Mutex
	// +checklocks:mu
	mem []byte
	// +checklocks:mu
	states []vfState
	// +checklocks:mu
	vfs []*VF // by slot; nil: free
}

// Open takes a NIC, in the network namespace of the calling thread. The server's
// queues have no user yet: pass them on with Export. Errors: as direct.Open's.
func Open(ctx context.Context, o Options) (*Uplink, error) {
	runtime.LockOSThread() // the set-up uses several sockets, all in one namespace
	defer runtime.UnlockOSThread()
	if o.VFs == 0 {
		o.VFs = DefaultVFs
	}
	if o.VFs < 0 || o.VFs > MaxVFs {
		return nil, fmt.Errorf("%d direct queues: 1 to %d are possible", o.VFs, MaxVFs)
	}
	l, err := nic.Take(ctx, o.NIC, o.Logger)
	if err != nil {
		return nil, err
	}
	if l.IsTAP() {
		l.Close()
		return nil, fmt.Errorf("%w: AF_XDP on %s would be on the host's side of the TAP", nic.ErrUnsupported, o.NIC)
	}
	if unused := l.Hardware().Unused(); unused != "" {
		l.Warn("%s", unused)
	}
	s := setting{tables: o.Tables, mac: o.MAC, index: l.Attrs().Index, vfs: o.VFs, mtu: cmp.Or(o.MTU, l.Attrs().MTU)}
	if s.mac == nil {
		s.mac = l.Attrs().HardwareAddr
	}
	u := &Uplink{tables: o.Tables, vfs: make([]*VF, o.VFs), noOutlets: o.NoOutlet}
	if u.nic, err = afxdp.Take(ctx, l, o.Options, u.loader(s)); err != nil {
		u.objects.close()
		return nil, err
	}
	if u.mem, u.states, err = states(u.objects.VFs.FD(), o.VFs); err != nil {
		_ = u.Close()
		return nil, err
	}
	if err := u.sweepBut(nil); err != nil {
		_ = u.Close()
		return nil, err
	}
	return u, nil
}

// Export describes the server's queues, with their files, which stay the
// Uplink's.
func (u *Uplink) Export() (direct.Export, []int) { return u.nic.Export() }

// Renew makes new queues for the server, whose last user has left them in a state
// that nobody can go on with. VFs stay. After an error the Uplink can only be closed.
func (u *Uplink) Renew(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return u.nic.Renew(ctx)
}

// Close ends all VFs and gives the NIC back, but for what others hold. Further
// calls do nothing; other methods then fail, but for Export, Keep and Check, which
// must not be called.
func (u *Uplink) Close() error {
	u.life.Lock()
	over := u.closed
	u.closed = true
	u.life.Unlock()
	if over {
		return nil
	}
	u.spare.close()
	u.mu.Lock()
	vfs := append([]*VF(nil), u.vfs...)
	u.mu.Unlock()
	for _, v := range vfs {
		if v != nil {
			_ = v.Close()
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.mem != nil {
		_ = unix.Munmap(u.mem)
		u.mem, u.states = nil, nil
	}
	return errors.Join(u.dropObjects(), u.nic.Close())
}

// Stamp has the owner's frames, those that its VF is for, numbered: 1, 2, ... modulo 2^24 in the lower bits
// of their stamps, tag in the upper 8. With 0 it ends that. The owner must have a
// VF: ErrNoVF.
func (u *Uplink) Stamp(owner uint32, tag uint8) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	v := u.of(owner)
	if v == nil {
		return fmt.Errorf("stamp frames of instance %d: %w: it has none", owner, ErrNoVF)
	}
	s := &u.states[v.slot]
	control := s.control.Load() &^ controlTag
	if tag != 0 {
		s.control.Store(control) // off, for the numbers begin anew
		s.stamps.Store(0)
	}
	s.control.Store(control | uint64(tag)<<controlTagShift)
	return nil
}

// Steer sends all that the table says is the owner's to its VF, as far as that is for
// it, or with nil to the server. It is one store of one word. Error: ErrNoVF, if v is
// not the owner's; to the server it never fails.
func (u *Uplink) Steer(owner uint32, v *VF) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	have := u.of(owner)
	switch {
	case v != have && v != nil:
		return fmt.Errorf("steer instance %d: %w: it is not its own", owner, ErrNoVF)
	case have == nil:
	case v == nil:
		u.states[have.slot].control.And(^uint64(controlSteered))
	default:
		u.states[have.slot].control.Or(controlSteered)
	}
	return nil
}

// of finds the VF of an owner.
//
// +checklocks:u.mu
func (u *Uplink) of(owner uint32) *VF {
	for _, v := range u.vfs {
		if v != nil && v.owner == owner {
			return v
		}
	}
	return nil
}

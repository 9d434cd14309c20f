package steer

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"junction/direct"
	"junction/direct/afxdp"
	"junction/direct/internal/nic"
	"junction/direct/internal/outlet"
	"junction/direct/steer/scope"
	"junction/portmap/table"
)

// VF is an instance's own device: see the package's documentation. Its methods
// may be called from any goroutine.
type VF struct {
	u       *Uplink
	slot    int
	owner   uint32
	ports   *scope.Ports // nil: all that the owner has
	pair    pair
	inner   *afxdp.Program
	sock    *afxdp.Socket
	outlet  *outlet.Outlet // nil: there is none
	warning string         // why
	cut     bool           // there was one, which somebody has deleted while no monitor ran

	prober  prober
	closing sync.Once
}

// NewVF makes a VF for an instance, the one it has, for these of its local ports or
// with nil for all that it has. Nothing is steered to it yet. Errors: ErrNoVF when all are in use or the owner has one; direct.ErrUnsupported
// if the NIC's driver allows none.
func (u *Uplink) NewVF(ctx context.Context, owner uint32, ports *scope.Ports) (*VF, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	u.life.RLock()
	defer u.life.RUnlock()
	if u.closed {
		return nil, fmt.Errorf("VF for instance %d: %w: the NIC has been given up", owner, ErrNoVF)
	}
	if owner == 0 || owner > table.MaxOwner {
		return nil, fmt.Errorf("VF for instance %d: no such number", owner)
	}
	if p := u.nic.Program(); p.Generic() || p.Frags() {
		return nil, fmt.Errorf("VF on %s: %w: it takes native XDP, and an MTU whose frames fit into one buffer", u.nic.Link().Name(), nic.ErrUnsupported)
	}
	v, err := u.reserve(owner, ports)
	if err != nil {
		return nil, err
	}
	if err := v.make(ctx); err != nil {
		_ = v.Close()
		return nil, fmt.Errorf("make VF %d for instance %d: %w", v.slot, owner, err)
	}
	u.spare.refill(u.nic.MTU())
	return v, nil
}

// reserve finds a free slot.
func (u *Uplink) reserve(owner uint32, ports *scope.Ports) (*VF, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of(owner) != nil {
		return nil, fmt.Errorf("VF for instance %d: %w: it has one", owner, ErrNoVF)
	}
	slot := slices.Index(u.vfs, nil)
	if slot < 0 {
		return nil, fmt.Errorf("VF for instance %d: %w: all %d are in use; start the monitor with more (--direct-queues), or switch another instance to server mode",
			owner, ErrNoVF, len(u.vfs))
	}
	v := &VF{u: u, slot: slot, owner: owner, ports: ports}
	u.vfs[slot] = v
	return v, nil
}

// rxMemory is for 8192 frames, of which each has 2 KiB, with an MTU of 1500. A
// veth's sender does not wait for its receiver; and a client's acknowledgements of
// what the instance has sent, each in a frame of its own, are more than 2048 when
// the instance has had no processor for 20 ms.
const rxMemory = 16 << 20

// make makes devices, socket and entries of the maps; that of the owner is the
// last.
func (v *VF) make(ctx context.Context) (err error) {
	o := v.u.objects
	if v.pair, err = newPair(v.u.nic.Link(), v.slot, v.u.nic.MTU()); err != nil {
		return err
	}
	if err := v.pair.guard(v.u.nic.Link(), o.Egress); err != nil {
		return err
	}
	inner, err := v.pair.innerLink(v.u.nic.Link())
	if err != nil {
		return err
	}
	defer inner.Close()
	if v.inner, err = afxdp.PlainProgram(1, false); err != nil {
		return err
	}
	if err := v.pair.attach(v.inner); err != nil {
		return err
	}
	if v.sock, err = afxdp.NewSocket(ctx, afxdp.Target{Link: inner, Queue: 0, RXMemory: rxMemory, Memory: v.u.spare.take()}); err != nil {
		return err
	}
	files := v.sock.Files()
	if err := v.inner.Sockets.Put(uint32(0), uint32(files[0])); err != nil {
		return fmt.Errorf("enter the socket: %w", err)
	}
	if err := v.clearCounts(); err != nil {
		return err
	}
	if err := o.Outers.Put(uint32(v.pair.outer), [2]uint32{uint32(v.slot), v.owner}); err != nil {
		return fmt.Errorf("enter the outer end: %w", err)
	}
	if err := v.pair.up(v.u.nic.Link()); err != nil {
		return err
	}
	if err := v.makeOutlet(); err != nil {
		return err
	}
	if err := o.Devices.Put(uint32(v.slot), uint32(v.pair.outer)); err != nil {
		return fmt.Errorf("enter the device: %w", err)
	}
	if err := v.writeScope(v.u.state(v.slot)); err != nil {
		return err
	}
	if err := o.Owners.Put(v.owner, uint32(v.slot)); err != nil {
		return fmt.Errorf("enter the owner: %w", err)
	}
	return nil
}

func (u *Uplink) state(slot int) *vfState {
	u.mu.Lock()
	defer u.mu.Unlock()
	return &u.states[slot]
}

// writeScope says what the VF is for and has, and that nothing is steered to it.
func (v *VF) writeScope(s *vfState) error {
	var control uint64
	if v.outlet != nil {
		control = controlOutlet
	}
	if v.ports != nil {
		if err := v.u.objects.Scopes.Put(uint32(v.slot), v.ports.Bits()[:]); err != nil {
			return fmt.Errorf("enter the ports: %w", err)
		}
		control |= controlSome
	}
	s.control.Store(control)
	return nil
}

// readScope reads what a VF of the process before is for.
func (v *VF) readScope(s *vfState) (*scope.Ports, error) {
	if s.control.Load()&controlSome == 0 {
		return nil, nil
	}
	bits := make([]uint64, scope.Words)
	if err := v.u.objects.Scopes.Lookup(uint32(v.slot), &bits); err != nil {
		return nil, fmt.Errorf("read the ports of VF %d: %w", v.slot, err)
	}
	return scope.Of((*[scope.Words]uint64)(bits)), nil
}

// Owner is the instance's number.
func (v *VF) Owner() uint32 { return v.owner }

// Ports are those of the owner's local ports that the VF is for, nil for all.
func (v *VF) Ports() *scope.Ports { return v.ports }

// Devices are the numbers of the devices that last as long as the VF, which is of no
// use without any of them: at the instance's end, at the uplink's, and the outlet. 0 is
// an outlet that was gone at the TakeOver.
func (v *VF) Devices() []int {
	all := []int{v.pair.inner, v.pair.outer}
	switch {
	case v.outlet != nil:
		all = append(all, v.outlet.Index)
	case v.cut:
		all = append(all, 0)
	}
	return all
}

// Export describes the instance's queue for Adopt there, with its files, which
// stay the VF's. After a TakeOver there are none: the instance has them.
func (v *VF) Export() (direct.Export, []int) {
	if v.sock == nil {
		return direct.Export{}, nil
	}
	e := direct.Export{
		NIC: v.pair.innerName, Index: v.pair.inner, MAC: v.u.nic.MAC().String(), MTU: v.u.nic.MTU(),
		Partial: v.u.nic.Link().Virtual(), Stamps: true, Queues: []afxdp.Geometry{v.sock.Geometry},
	}
	files := v.sock.Files()
	all := files[:]
	if v.outlet != nil {
		e.Outlet = nic.OutletAll
		all = append(all, v.outlet.Files()...)
	}
	if v.warning != "" {
		e.Warnings = []string{v.warning}
	}
	return e, all
}

// Close ends the VF: the owner's frames go to the server.
func (v *VF) Close() (err error) {
	v.closing.Do(func() { err = v.close() })
	return err
}

func (v *VF) close() error {
	o := v.u.objects
	err := errors.Join(
		forget(o.Owners, v.owner),
		forget(o.Devices, uint32(v.slot)),
		v.pair.remove(v.u.nic.Link()),
		forget(o.Outers, uint32(v.pair.outer)),
		v.closeOutlet(),
	)
	v.prober.close()
	if v.sock != nil {
		err = errors.Join(err, v.sock.Close())
	}
	if v.inner != nil {
		err = errors.Join(err, v.inner.Close())
	}
	v.u.mu.Lock()
	defer v.u.mu.Unlock()
	v.u.states[v.slot].control.Store(0)
	v.u.vfs[v.slot] = nil
	return err
}

// forget deletes an entry that may not be there.
func forget(m *ebpf.Map, key uint32) error {
	if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete entry %d of %v: %w", key, m, err)
	}
	return nil
}

// Probe sends a frame into the VF towards the instance; after Await, behind all that was
// steered there before. Ethernet header and all are the caller's. It may be lost, as any
// frame. Error: unix.ENXIO, when the device is gone.
func (v *VF) Probe(frame []byte) error {
	if err := v.prober.send(v.pair.outer, frame); err != nil {
		return fmt.Errorf("send a probe into VF %d: %w", v.slot, err)
	}
	return nil
}

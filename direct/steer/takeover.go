package steer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"junction/direct"
	"junction/direct/afxdp"
	"junction/direct/internal/nic"
	"junction/direct/internal/outlet"
	"junction/portmap/table"
)

// KeepFiles is how many files Keep returns.
const KeepFiles = afxdp.KeepFiles

// Keep returns what the network server holds for the case that the monitor dies:
// with it, and the sockets, the uplink goes on as it is, and TakeOver makes an
// Uplink of it again. The files stay the Uplink's.
func (u *Uplink) Keep() []int {
	k := u.nic.Keep()
	return k[:]
}

// Before is what a successor is to be told with Options.Before.
func (u *Uplink) Before() *direct.Channels { return u.nic.Before() }

// Tables are those that the program looks things up in.
func (u *Uplink) Tables() *table.Maps { return u.tables }

// TakeOver continues an uplink whose Uplink died with its process: e and files
// (Keep's, then Export's) are what somebody has kept of it. It takes the
// descriptors over, also when it fails. The program is replaced by this version's;
// no frame is lost by that. The tables are as the process left them: Tables, the
// caller's to close after the Uplink. VFs are as they were: VFs tells of them.
func TakeOver(ctx context.Context, o Options, e direct.Export, files []int) (_ *Uplink, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	rest := files
	defer func() { closeAll(rest) }()
	if len(files) < KeepFiles {
		return nil, fmt.Errorf("take %s over: %w: %d files", e.NIC, direct.ErrGeometry, len(files))
	}
	l, err := nic.Take(ctx, e.NIC, o.Logger)
	if err != nil {
		return nil, err
	}
	u := &Uplink{ownsTables: true, noOutlets: o.NoOutlet}
	program, err := u.reload(e, files[0])
	if err != nil {
		l.Close()
		return nil, errors.Join(fmt.Errorf("take %s over: %w", e.NIC, err), u.dropObjects())
	}
	rest = nil
	u.nic, err = afxdp.Retake(l, e, [KeepFiles]int(files[:KeepFiles]), files[KeepFiles:], program, o.Before)
	if err != nil {
		return nil, errors.Join(err, u.dropObjects())
	}
	if err := errors.Join(u.nic.Replace(), u.recoverVFs()); err != nil {
		return nil, errors.Join(fmt.Errorf("take %s over: %w", e.NIC, err), u.Close())
	}
	u.ownsTables = false
	return u, nil
}

// dropObjects closes programs and maps.
func (u *Uplink) dropObjects() error {
	u.objects.close() // they stay, closed, for who may still use a VF
	if u.ownsTables && u.tables != nil {
		return u.tables.Close()
	}
	return nil
}

// reload loads the programs over the maps of the one that is attached.
func (u *Uplink) reload(e direct.Export, link int) (*afxdp.Program, error) {
	id, err := afxdp.AttachedProgram(link, e.Index)
	if err != nil {
		return nil, err
	}
	maps, err := mapsOf(ebpf.ProgramID(id))
	defer func() {
		for _, m := range maps {
			_ = m.Close() // load has descriptors of its own
		}
	}()
	if err != nil {
		return nil, err
	}
	if u.tables, err = cloneTables(maps); err != nil {
		return nil, err
	}
	s := setting{tables: u.tables, index: e.Index, queues: len(e.Queues), mtu: e.MTU, frags: e.Frags, maps: maps}
	if s.mac, err = net.ParseMAC(e.MAC); err != nil {
		return nil, fmt.Errorf("%w: %w", direct.ErrGeometry, err)
	}
	s.vfs = int(maps["junction_devs"].MaxEntries())
	if s.vfs > MaxVFs {
		return nil, fmt.Errorf("%w: %d VFs", direct.ErrGeometry, s.vfs)
	}
	u.vfs = make([]*VF, s.vfs)
	return u.loader(s)(s.queues, s.frags)
}

// mapsOf opens the maps of a program of this package, by name.
func mapsOf(id ebpf.ProgramID) (maps map[string]*ebpf.Map, err error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, nic.Denied(err, "open the attached program", "CAP_SYS_ADMIN")
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, fmt.Errorf("look at the attached program: %w", err)
	}
	ids, _ := info.MapIDs()
	maps = make(map[string]*ebpf.Map)
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return maps, nic.Denied(err, "open a map of the attached program", "CAP_SYS_ADMIN")
		}
		if mi, err := m.Info(); err != nil || !slices.Contains(ownMaps, mi.Name) {
			_ = m.Close() // the constants, for instance
			continue
		} else {
			maps[mi.Name] = m
		}
	}
	for _, name := range ownMaps {
		if maps[name] == nil && !slices.Contains(mayLack, name) {
			return maps, fmt.Errorf("%w: the attached program has no map %s", direct.ErrGeometry, name)
		}
	}
	return maps, nil
}

var ownMaps = []string{
	"junction_addrs", "junction_ports", "junction_xsks", "junction_devs",
	"junction_owners", "junction_outers", "junction_vfs", "junction_scopes", "junction_counts",
}

// mayLack are the maps that the attached program may be without: one only egress has,
// and one an older version did not know.
var mayLack = []string{"junction_outers", "junction_scopes"}

func cloneTables(maps map[string]*ebpf.Map) (*table.Maps, error) {
	slots, err := maps["junction_addrs"].Clone()
	if err != nil {
		return nil, err
	}
	ports, err := maps["junction_ports"].Clone()
	if err != nil {
		return nil, errors.Join(err, slots.Close())
	}
	return table.MapsOf(slots, ports)
}

// recoverVFs finds the VFs that there are, and deletes the devices of those that
// were in the making.
func (u *Uplink) recoverVFs() error {
	mem, s, err := states(u.objects.VFs.FD(), len(u.vfs))
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mem, u.states = mem, s
	var owner, slot uint32
	for it := u.objects.Owners.Iterate(); it.Next(&owner, &slot); {
		if int(slot) >= len(u.vfs) {
			continue
		}
		v := &VF{u: u, slot: int(slot), owner: owner}
		if v.ports, err = v.readScope(&s[slot]); err != nil {
			return err
		}
		if v.pair, err = findPair(u.nic.Link(), int(slot)); err != nil {
			u.nic.Link().Warn("VF %d of instance %d is gone: %v", slot, owner, err)
			_ = forget(u.objects.Owners, owner)
			continue
		}
		// The egress program has a map of ours that the other had no name for.
		if err := v.reguard(); err != nil {
			return err
		}
		u.vfs[slot] = v
	}
	return u.sweepBut(u.vfs)
}

// reguard puts this version's egress program into the place of the one before.
//
// +checklocks:v.u.mu
func (v *VF) reguard() error {
	if err := v.u.objects.Outers.Put(uint32(v.pair.outer), [2]uint32{uint32(v.slot), v.owner}); err != nil {
		return fmt.Errorf("enter the outer end: %w", err)
	}
	if err := outlet.Guard(v.u.nic.Link(), v.pair.outer, v.u.objects.Egress, true); err != nil {
		return err
	}
	return v.reguardOutlet()
}

// VFs returns the VFs that there are.
func (u *Uplink) VFs() (all []*VF) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, v := range u.vfs {
		if v != nil {
			all = append(all, v)
		}
	}
	return all
}

// Of returns an instance's VF, or nil.
func (u *Uplink) Of(owner uint32) *VF {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.of(owner)
}

// Check tells whether the NIC is still there: nil or direct.ErrNoNIC.
func (u *Uplink) Check() error { return u.nic.Link().Refresh() }

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

package steer

import (
	"fmt"

	"junction/direct/internal/nic"
	"junction/direct/internal/outlet"
)

// By its outlet an instance sends what is to be cut behind it, and all else, too:
// so its frames stay in order, and take one hop less than through the pair. The
// egress program decides on them as on those of the pair.

// outletName is pairName's with a t.
func (v *VF) outletName() string {
	return pairName(v.u.nic.Link().Attrs().Index, v.slot) + outletSuffix
}

const outletSuffix = "t"

// makeOutlet makes the outlet. A VF without one does all that it should, slower.
func (v *VF) makeOutlet() (err error) {
	l := v.u.nic.Link()
	if v.u.noOutlets || v.sock.ZeroCopy {
		return nil
	}
	if v.outlet, err = outlet.New(l, v.outletName(), 1, v.u.objects.Egress); err != nil {
		v.outlet, v.warning = nil, fmt.Sprintf("TCP segments are cut and summed in the instance, one by one: %v", err)
		return nil
	}
	if err := v.outlet.Persist(); err != nil { // so that it lasts as long as the pair, whoever dies
		return err
	}
	return v.enterOutlet()
}

func (v *VF) enterOutlet() error {
	if err := v.u.objects.Outers.Put(uint32(v.outlet.Index), [2]uint32{uint32(v.slot), v.owner}); err != nil {
		return fmt.Errorf("enter the outlet: %w", err)
	}
	return nil
}

// reguardOutlet finds the outlet that an instance has and puts this version's
// program into the place of the one before.
//
// +checklocks:v.u.mu
func (v *VF) reguardOutlet() error {
	l := v.u.nic.Link()
	index, err := outlet.Find(l, v.outletName())
	if err != nil {
		return err
	}
	if index == 0 {
		v.cut = v.u.states[v.slot].control.Load()&controlOutlet != 0
		return nil
	}
	v.outlet = &outlet.Outlet{Index: index}
	if err := v.enterOutlet(); err != nil {
		return err
	}
	return outlet.Guard(l, index, v.u.objects.Egress, true)
}

func (v *VF) closeOutlet() error {
	if v.outlet == nil {
		return nil
	}
	err := v.outlet.Close(v.u.nic.Link())
	if forgotten := forget(v.u.objects.Outers, uint32(v.outlet.Index)); err == nil {
		err = forgotten
	}
	return err
}

// outletUse says what leaves by the outlet.
func (v *VF) outletUse() nic.Outlet {
	if v.outlet == nil {
		return nic.NoOutlet
	}
	return nic.OutletAll
}

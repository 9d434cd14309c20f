package direct

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"junction/direct/afpacket"
	"junction/direct/afxdp"
	"junction/direct/internal/nic"
	"junction/direct/tap"
)

// Open opens the queues of a NIC in the network namespace of the calling
// thread (a caller that has changed it must have locked the thread). The
// device stays usable from any thread.
//
// Errors: ErrNoNIC, ErrInUse, ErrPermission, ErrUnsupported, ErrMTU,
// ErrDefaultRoute; ctx ends the wait for a NIC whose last holder has only just
// been killed.
func Open(ctx context.Context, o Options) (Device, error) {
	// The set-up uses several sockets, all in one namespace.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if o.MAC != nil && len(o.MAC) != 6 {
		return nil, fmt.Errorf("MAC %s has %d bytes, not 6", o.MAC, len(o.MAC))
	}
	switch o.Driver {
	case "afxdp":
		return openAFXDP(ctx, o)
	case "tap":
		return openTAP(ctx, o)
	case "afpacket":
		return openAFPacket(ctx, o)
	case "":
		return openBest(ctx, o)
	}
	return nil, unknownDriver(o.Driver)
}

// Check tells whether Open would refuse a NIC, or driver, for what it is or because
// somebody has it: of one that is in use it looks for about a second whether it
// stays so, unless ctx ends. It opens nothing. Errors: ErrNoNIC, ErrUnsupported,
// ErrDefaultRoute, ErrInUse; others for a driver that there is not.
func Check(ctx context.Context, name, driver string) error {
	switch driver {
	case "", "afxdp", "tap", "afpacket":
	default:
		return unknownDriver(driver)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l, err := nic.Find(name, nil)
	switch {
	case errors.Is(err, ErrNoNIC) && driver == "tap":
		return nil // it is made
	case err != nil:
		return err
	}
	defer l.Close()
	if err := l.Usable(); err != nil {
		return err
	}
	return l.Acquire(ctx) // given back at once
}

func unknownDriver(name string) error {
	return fmt.Errorf("unknown driver %q: use afxdp, tap or afpacket", name)
}

// openBest opens AF_XDP, or TAP where AF_XDP cannot serve, with a warning that
// says why.
func openBest(ctx context.Context, o Options) (Device, error) {
	l, err := nic.Find(o.NIC, o.Logger)
	if err != nil {
		return nil, err
	}
	tap := l.IsTAP()
	l.Close()
	if tap {
		return openTAP(ctx, o)
	}
	d, err := openAFXDP(ctx, o)
	if err == nil || !(errors.Is(err, ErrUnsupported) || errors.Is(err, ErrMTU)) {
		return d, err
	}
	return openTAP(ctx, o, "AF_XDP not available, using tap: "+err.Error())
}

func openAFXDP(ctx context.Context, o Options) (Device, error) {
	l, err := nic.Take(ctx, o.NIC, o.Logger)
	if err != nil {
		return nil, err
	}
	if l.IsTAP() {
		l.Close()
		return nil, fmt.Errorf("%w: AF_XDP on %s would be on the host's side of the TAP; use the tap driver", ErrUnsupported, o.NIC)
	}
	d, err := afxdp.Open(ctx, l, o)
	if err != nil {
		return nil, err // not d: a nil pointer in an interface is not nil
	}
	return d, nil
}

func openAFPacket(ctx context.Context, o Options) (Device, error) {
	l, err := nic.Take(ctx, o.NIC, o.Logger)
	if err != nil {
		return nil, err
	}
	if l.IsTAP() {
		l.Close()
		return nil, fmt.Errorf("%w: packet sockets on %s would be on the host's side of the TAP; use the tap driver", ErrUnsupported, o.NIC)
	}
	d, err := afpacket.Open(ctx, l, o)
	if err != nil {
		return nil, err
	}
	return d, nil
}

func openTAP(ctx context.Context, o Options, warnings ...string) (Device, error) {
	l, err := nic.Take(ctx, o.NIC, o.Logger)
	var d *tap.Device
	switch {
	case err == nil:
		for _, w := range warnings {
			l.Warn("%s", w)
		}
		d, err = tap.Open(ctx, l, o)
	case errors.Is(err, ErrNoNIC):
		d, err = tap.Create(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

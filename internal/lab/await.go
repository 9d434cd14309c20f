package lab

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
)

// upTimeout bounds the wait for the kernel's link watch, which takes a
// millisecond or so.
const upTimeout = 10 * time.Second

// awaitUp returns when the link carries frames. Set up first, one end of a veth
// gets its carrier when the other is set up, and its queue later still, from a
// work queue of the kernel; until then it drops what it is given, silently.
func (e end) awaitUp() error {
	var last error
	updates, stop := make(chan netlink.LinkUpdate, 16), make(chan struct{})
	err := netlink.LinkSubscribeWithOptions(updates, stop, netlink.LinkSubscribeOptions{
		Namespace:     &e.ns.handle,
		ListExisting:  true,
		ErrorCallback: func(err error) { last = err },
	})
	if err != nil {
		return fmt.Errorf("lab: watch %s: %w", e.name, err)
	}
	defer func() {
		close(stop)
		for range updates { // until the subscription has ended
		}
	}()
	timeout := time.NewTimer(upTimeout)
	defer timeout.Stop()
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return fmt.Errorf("lab: watch %s: %w", e.name, last)
			}
			if a := u.Attrs(); a.Name == e.name && a.OperState == netlink.OperUp {
				return nil
			}
		case <-timeout.C:
			return fmt.Errorf("lab: %s of %s did not come up within %v", e.name, e.ns.name, upTimeout)
		}
	}
}

package tap

import (
	"crypto/rand"
	"errors"
	"net"

	"github.com/vishvananda/netlink"

	"junction/direct/internal/nic"
	"junction/direct/internal/tun"
)

// attachTAP attaches n queues to the TAP that d.link is.
func (d *Device) attachTAP(n int) ([]int, error) {
	// A multi-queue TAP would take more queues and share its frames out.
	if kind, ok := d.link.Link.(*netlink.Tuntap); ok && kind.Queues > 0 {
		return nil, d.link.InUse(nic.HolderByFDInfo("iff", d.name))
	}
	fds, err := tun.Attach(d.name, n)
	if err != nil {
		tun.CloseAll(fds)
	}
	if errors.Is(err, nic.ErrInUse) {
		return nil, d.link.InUse(nic.HolderByFDInfo("iff", d.name))
	}
	return fds, err
}

// randomMAC returns a random locally administered unicast address.
func randomMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // never fails
	mac[0] = mac[0]&^1 | 2
	return mac
}

package nic

import (
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is a NIC of the network namespace in which Find was called, leased for
// one device.
type Link struct {
	netlink.Link
	// Netlink stays bound to that namespace.
	Netlink  *netlink.Handle
	lease    int
	logger   *slog.Logger
	warnings []string
}

// Find looks name up in the calling thread's network namespace.
func Find(name string, logger *slog.Logger) (*Link, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	l := &Link{Netlink: h, lease: -1, logger: logger}
	l.Link, err = h.LinkByName(name)
	if err == nil {
		return l, nil
	}
	h.Close()
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, fmt.Errorf("%w: %q in this network namespace; see: ip link", ErrNoNIC, name)
	}
	return nil, fmt.Errorf("look up NIC %q: %w", name, err)
}

// Refresh reads the NIC's attributes again.
func (l *Link) Refresh() error {
	fresh, err := l.Netlink.LinkByIndex(l.Attrs().Index)
	if err != nil {
		return fmt.Errorf("%w: %s has been deleted meanwhile (%w)", ErrNoNIC, l.Name(), err)
	}
	l.Link = fresh
	return nil
}

// Name returns the NIC's name.
func (l *Link) Name() string { return l.Attrs().Name }

// Warn logs and records a warning for Mode.
func (l *Link) Warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.warnings = append(l.warnings, text)
	l.logger.Warn(text, "nic", l.Name())
}

// Warnings returns what Warn recorded.
func (l *Link) Warnings() []string { return l.warnings }

// IsTAP says whether the NIC is a TUN/TAP device.
func (l *Link) IsTAP() bool { return l.Type() == "tuntap" || l.Type() == "tun" }

// Virtual says whether the NIC is a software device, whose frames may come
// from this machine with partial checksums.
func (l *Link) Virtual() bool { return l.Type() != "device" }

// Usable refuses a NIC that the host itself needs or that has no Ethernet
// frames.
func (l *Link) Usable() error {
	if l.Attrs().Flags&net.FlagLoopback != 0 || l.Attrs().EncapType != "ether" {
		return fmt.Errorf("%w: %s is not an Ethernet NIC (%s); use another one", ErrUnsupported, l.Name(), l.Attrs().EncapType)
	}
	// A filter by interface would miss routes with several next hops.
	routes, err := l.Netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for i := range routes {
		if isDefault(&routes[i]) && uses(&routes[i], l.Attrs().Index) {
			return fmt.Errorf("%w: %s would be cut off from the network; use another NIC", ErrDefaultRoute, l.Name())
		}
	}
	return nil
}

func isDefault(r *netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0 && r.Dst.IP.IsUnspecified()
}

func uses(r *netlink.Route, index int) bool {
	for _, hop := range r.MultiPath {
		if hop.LinkIndex == index {
			return true
		}
	}
	return r.LinkIndex == index
}

// ChooseMTU returns the MTU to use for the one asked for (0: the NIC's own).
func (l *Link) ChooseMTU(asked int) (int, error) {
	most := l.Attrs().MTU
	switch {
	case asked == 0:
		return most, nil
	case asked < 68:
		return 0, MTUError(l.Name(), asked, most, "IPv4 needs at least 68, IPv6 1280")
	case asked > most:
		return 0, MTUError(l.Name(), asked, most, fmt.Sprintf("raise it first: ip link set dev %s mtu %d", l.Name(), asked))
	}
	return asked, nil
}

// Up sets the NIC up if it is down.
func (l *Link) Up() error {
	if l.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	return Denied(l.Netlink.LinkSetUp(l), "set "+l.Name()+" up", "CAP_NET_ADMIN")
}

// Close gives the lease and the netlink socket back.
func (l *Link) Close() {
	l.release()
	l.Netlink.Close()
}

// Package hostile makes Ethernet frames that no honest machine sends, and sends
// them: truncated, too long, contradicting themselves, looping, lying about
// their checksums. A stack that gets them must neither panic nor hang nor leak,
// and must go on serving.
//
// Frames are made from a seed: the same seed gives the same frames.
package hostile

import (
	"errors"
	"net"
	"net/netip"
)

// Target says whom the frames are for and whom they claim to be from.
type Target struct {
	// MAC of the stack under attack, and of the NIC that sends.
	MAC, FromMAC net.HardwareAddr
	// IPv4 and IPv6 of the stack under attack, and addresses on its link to claim
	// as sender. Answers go to these, so let them be nobody's.
	IPv4, FromIPv4 netip.Addr
	IPv6, FromIPv6 netip.Addr
	// TCPPort and UDPPort have a server.
	TCPPort, UDPPort uint16
}

func (t Target) check() error {
	if len(t.MAC) != 6 || len(t.FromMAC) != 6 {
		return errors.New("hostile: target needs MAC and FromMAC of 6 bytes")
	}
	if !t.IPv4.Is4() || !t.FromIPv4.Is4() || !t.IPv6.Is6() || !t.FromIPv6.Is6() {
		return errors.New("hostile: target needs IPv4, FromIPv4, IPv6 and FromIPv6 of their families")
	}
	return nil
}

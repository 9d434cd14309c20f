package netstack

import modeswitch "junction/switch"

// Stats is a snapshot of an instance's network.
type Stats struct {
	// Link counts the frames of the link endpoint; nil without a link.
	Link *modeswitch.Stats `json:"link,omitempty"`
	// TCP counts TCP's own events.
	TCP TCPStats `json:"tcp"`
	// Drops counts packets that the stack received and dropped, by reason.
	// Reasons that never occurred are left out.
	Drops map[string]uint64 `json:"drops"`
}

// TCPStats counts what TCP did.
type TCPStats struct {
	SegmentsReceived uint64 `json:"segments_received"`
	SegmentsSent     uint64 `json:"segments_sent"`
	Retransmits      uint64 `json:"retransmits"`
	Timeouts         uint64 `json:"timeouts"`
	ResetsSent       uint64 `json:"resets_sent"`
	ResetsReceived   uint64 `json:"resets_received"`
	Accepted         uint64 `json:"connections_accepted"`
	Connected        uint64 `json:"connections_made"`
}

// Stats returns a snapshot. It may be called at any time, after Close too.
func (n *Network) Stats() Stats {
	s := n.stack.Stats()
	out := Stats{
		TCP: TCPStats{
			SegmentsReceived: s.TCP.ValidSegmentsReceived.Value(),
			SegmentsSent:     s.TCP.SegmentsSent.Value(),
			Retransmits:      s.TCP.Retransmits.Value(),
			Timeouts:         s.TCP.Timeouts.Value(),
			ResetsSent:       s.TCP.ResetsSent.Value(),
			ResetsReceived:   s.TCP.ResetsReceived.Value(),
			Accepted:         s.TCP.PassiveConnectionOpenings.Value(),
			Connected:        s.TCP.ActiveConnectionOpenings.Value(),
		},
		Drops: make(map[string]uint64),
	}
	for name, c := range map[string]uint64{
		"ip_malformed":           s.IP.MalformedPacketsReceived.Value(),
		"ip_bad_source":          s.IP.InvalidSourceAddressesReceived.Value(),
		"ip_bad_destination":     s.IP.InvalidDestinationAddressesReceived.Value(),
		"ip_malformed_fragments": s.IP.MalformedFragmentsReceived.Value(),
		"ip_filtered":            s.IP.IPTablesInputDropped.Value(),
		"arp_malformed":          s.ARP.MalformedPacketsReceived.Value(),
		"tcp_bad_checksum":       s.TCP.ChecksumErrors.Value(),
		"tcp_invalid":            s.TCP.InvalidSegmentsReceived.Value(),
		"tcp_accept_overflow":    s.TCP.ListenOverflowSynDrop.Value() + s.TCP.ListenOverflowAckDrop.Value(),
		"udp_bad_checksum":       s.UDP.ChecksumErrors.Value(),
		"udp_malformed":          s.UDP.MalformedPacketsReceived.Value(),
		"udp_unknown_port":       s.UDP.UnknownPortErrors.Value(),
		"udp_receive_buffer":     s.UDP.ReceiveBufferErrors.Value(),
	} {
		if c != 0 {
			out.Drops[name] = c
		}
	}
	if n.opts.Link != nil {
		link := n.opts.Link.Stats()
		out.Link = &link
	}
	return out
}

package netserver

// reason names why a frame went no further.
type reason uint8

const (
	dropNone          reason = iota
	dropShort                // no Ethernet header
	dropLong                 // larger than the MTU and not to be segmented
	dropVLAN                 // a VLAN's: instances have none
	dropEtherType            // neither IP nor ARP
	dropVnet                 // offload header contradicts the frame
	dropIPMalformed          // IP or transport header cannot be right
	dropLongHeaders          // headers reach further than the server looks
	dropARPMalformed         // not ARP for IPv4 over Ethernet
	dropARPOther             // ARP between others
	dropNDPOther             // NDP that concerns no instance
	dropOtherMAC             // unicast to another station
	dropOwnMAC               // from our own MAC address, off the wire
	dropNotOurs              // for an address that is no instance's
	dropNoPort               // for a port that nobody owns, and not to be refused
	dropNoProtocol           // for a shared address, of a protocol without ports
	dropICMPUnclaimed        // ICMP that answers or concerns no instance's packet
	dropFragment             // a fragment whose first one has not been seen
	dropNoMember             // for a group or all, and there is no instance
	dropLimited              // an answer that would exceed the rate of answers
	dropSpoofedMAC           // sent with another's MAC address
	dropSpoofedIP            // sent from an address that is not the sender's
	dropSpoofedPort          // sent from a port that is not the sender's
	dropTurnedBack           // sent to our own MAC address for an address on the wire
	dropRingFull             // the instance's ring had no room
	dropRingGone             // the instance's ring cannot be used any more
	dropUplinkFull           // the NIC took no more
	dropUplinkError          // the NIC refused it
	numReasons
)

var reasonNames = [numReasons]string{
	"", "short", "too_long", "vlan", "ether_type", "bad_offload", "ip_malformed", "headers_too_long",
	"arp_malformed", "arp_other", "ndp_other", "other_mac", "own_mac", "not_ours", "no_port", "no_protocol",
	"icmp_unclaimed", "fragment_unknown", "no_member", "answers_limited", "spoofed_mac", "spoofed_ip",
	"spoofed_port", "turned_back", "ring_full", "ring_gone", "uplink_full", "uplink_error",
}

// String is the name of the counter.
func (r reason) String() string { return reasonNames[r] }

// Account counts the frames of one source. At rest, summed over all sources,
//
//	In + Made = Out + Answered + the sum of Drops
type Account struct {
	In      uint64 `json:"in"`
	InBytes uint64 `json:"in_bytes"`
	// Made counts frames that the server made: answers, questions, and all
	// copies and segments of a frame but the first.
	Made uint64 `json:"made"`
	Out  uint64 `json:"out"`
	// Answered counts frames that went nowhere because the server answered them.
	Answered uint64 `json:"answered"`
	drops    [numReasons]uint64
}

func (a *Account) add(o *Account) {
	a.In += o.In
	a.InBytes += o.InBytes
	a.Made += o.Made
	a.Out += o.Out
	a.Answered += o.Answered
	for i, n := range o.drops {
		a.drops[i] += n
	}
}

// dropped returns how many frames went nowhere.
func (a *Account) dropped() (n uint64) {
	for _, d := range a.drops {
		n += d
	}
	return n
}

// Drops returns the drop counters by name, without those that are 0.
func (a *Account) Drops() map[string]uint64 {
	m := make(map[string]uint64)
	for r, n := range a.drops {
		if n != 0 {
			m[reason(r).String()] = n
		}
	}
	return m
}

package hostile

import "math/rand/v2"

// Class is a kind of hostile frame.
type Class int

// The classes.
const (
	Truncated     Class = iota // a good frame cut at any length
	Noise                      // an Ethernet header and random bytes
	Mutated                    // a good frame with some bytes changed
	VLAN                       // one or many VLAN tags, also cut off
	ARP                        // address lengths and operations that are not
	IPv4Header                 // wrong version, header length, total length, checksum
	IPv4Options                // options of length 0, or longer than the header
	IPv4Fragments              // overlapping, endless, too long when put together
	IPv6Header                 // wrong version, payload length, addresses
	IPv6Chain                  // long, looping and cut-off chains of extension headers
	NDP                        // options of length 0, advertisements nobody asked for
	TCPHeader                  // data offset, flags and checksum that are not
	TCPOptions                 // options of length 0, or longer than the header
	SYN                        // connections that are never completed
	UDPHeader                  // a length that is not, checksum wrong
	ICMPError                  // errors that quote garbage
	Giant                      // segments of up to 64 KiB in one frame
	numClasses
)

var classNames = [numClasses]string{
	"truncated", "noise", "mutated", "vlan", "arp", "ipv4-header", "ipv4-options", "ipv4-fragments", "ipv6-header",
	"ipv6-chain", "ndp", "tcp-header", "tcp-options", "syn", "udp-header", "icmp-error", "giant",
}

// String names the class.
func (c Class) String() string {
	if c < 0 || c >= numClasses {
		return "unknown"
	}
	return classNames[c]
}

// Classes returns all classes.
func Classes() []Class {
	all := make([]Class, numClasses)
	for i := range all {
		all[i] = Class(i)
	}
	return all
}

// Generator makes frames, of each class in turn. Not for concurrent use.
type Generator struct {
	rand   *rand.Rand
	target Target
	number uint64
}

// New returns a generator, or what the target lacks.
func New(seed uint64, t Target) (*Generator, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	return &Generator{rand: rand.New(rand.NewPCG(seed, 0)), target: t}, nil
}

// Next makes a frame. SYNs are as rare as other classes, so there is no flood of
// them: one frame in seventeen.
func (g *Generator) Next() (Class, []byte) {
	c := Class(g.number % uint64(numClasses))
	g.number++
	return c, g.make(c)
}

func (g *Generator) make(c Class) []byte {
	return [numClasses]func() []byte{
		g.truncated, g.noise, g.mutated, g.vlan, g.arp, g.ipv4Header, g.ipv4Options, g.ipv4Fragment, g.ipv6Header,
		g.ipv6Chain, g.ndp, g.tcpHeader, g.tcpOptions, g.syn, g.udpHeader, g.icmpError, g.giant,
	}[c]()
}

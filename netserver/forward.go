package netserver

import (
	"sync/atomic"

	"junction/portmap/table"
)

// action is what happens to a frame.
type action uint8

const (
	actDrop    action = iota
	actDeliver        // to one instance
	actUplink         // onto the wire
	actHolders        // to all instances that have an address
	actAnswer         // it becomes, or brings about, an answer to its sender
	actFlood          // to all instances but the sender, of those that have joined if it is for a group
	actAll            // the same, and onto the wire
	actReport         // it says what its sender has joined: onto the wire, for routers
)

// reply is an answer that the server makes.
type reply uint8

const (
	replyARP      reply = iota
	replyNDP            // neighbour advertisement
	replyEcho           // echo reply, the request turned round in place
	replyReset          // TCP: nobody has the port
	replyNoPort         // ICMP: nobody has the port
	replyFragment       // a further fragment of an echo request
)

// verdict is what the forwarder has decided.
type verdict struct {
	action action
	reason reason    // with actDrop
	reply  reply     // with actAnswer
	owner  uint32    // with actDeliver
	addr   table.Key // with actHolders
}

func drop(r reason) verdict        { return verdict{action: actDrop, reason: r} }
func answer(r reply) verdict       { return verdict{action: actAnswer, reply: r} }
func deliver(owner uint32) verdict { return verdict{action: actDeliver, owner: owner} }

// sender is an instance as the egress checks see it.
type sender struct {
	id     uint32
	shared uint64 // bit i: the instance may use shared address i
	// limit is of refusals of what it sends, so that who causes many does not use
	// up what others have.
	limit *limiter
}

// forwarder decides where frames go. Its methods may be called from any
// goroutine.
type forwarder struct {
	table atomic.Pointer[table.View]
	mac   mac // of the uplink, and so of all instances

	// Who sent, and whom the first fragment was for.
	sent, arriving flows
	echoes         flows
	limit          limiter // of refusals of what comes from the wire
}

// view is the present monitor's.
func (f *forwarder) view() *table.View { return f.table.Load() }

// owns tells whether a sender may use a source address.
func (f *forwarder) owns(s *sender, a table.Key) bool {
	switch w := f.view().Address(a); w.Kind() {
	case table.Dedicated:
		return w.Owner() == s.id
	case table.Shared:
		return s.shared>>w.Owner()&1 != 0
	}
	return false
}

// ours tells whether an address is an instance's, or shared.
func (f *forwarder) ours(a table.Key) bool { return f.view().Address(a).Kind() != table.Free }

// ingress decides about a frame from the wire.
func (f *forwarder) ingress(p *packet, now int64) verdict {
	switch {
	case p.srcMAC == f.mac:
		return drop(dropOwnMAC)
	case p.dstMAC != f.mac && !p.dstMAC.group():
		return drop(dropOtherMAC)
	case p.ether == etherARP:
		return f.ingressARP(&p.arp)
	case f.solicits(p):
		return answer(replyNDP)
	case f.ours(p.ip.dst):
		return f.local(p, nil, now)
	case p.ip.group || p.dstMAC.group():
		return verdict{action: actFlood}
	}
	return drop(dropNotOurs)
}

const (
	arpRequest = 1
	arpReply   = 2
)

func (f *forwarder) ingressARP(a *arpHeader) verdict {
	switch {
	case !f.ours(a.targK) || a.spa == a.tpa:
		return drop(dropARPOther)
	case a.op == arpRequest:
		return answer(replyARP)
	case a.op == arpReply:
		return verdict{action: actHolders, addr: a.targK}
	}
	return drop(dropARPMalformed)
}

// solicits tells whether p asks for the MAC address of one of our addresses.
func (f *forwarder) solicits(p *packet) bool {
	return p.ip.v6 && p.ip.proto == protoICMPv6 && p.ip.l4 != 0 && !p.ip.fragment &&
		p.icmp.kind == icmp6Solicit && f.ours(p.icmp.target)
}

// egress decides about a frame that an instance sent.
func (f *forwarder) egress(s *sender, p *packet, now int64) verdict {
	if p.srcMAC != f.mac {
		return drop(dropSpoofedMAC)
	}
	if p.ether == etherARP {
		return f.egressARP(s, &p.arp)
	}
	if why := f.sends(s, p, now); why != dropNone {
		return drop(why)
	}
	switch {
	case f.solicits(p):
		return answer(replyNDP)
	case f.ours(p.ip.dst):
		return f.local(p, s, now)
	case p.ip.group && p.ip.v6 && p.ip.proto == protoICMPv6 && (p.icmp.kind == icmp6Solicit || p.icmp.kind == icmp6Advertise):
		return verdict{action: actUplink}
	case p.reports():
		return verdict{action: actReport}
	case p.dstMAC.group():
		return verdict{action: actAll}
	case p.dstMAC == f.mac:
		return drop(dropTurnedBack)
	}
	return verdict{action: actUplink}
}

func (f *forwarder) egressARP(s *sender, a *arpHeader) verdict {
	switch {
	case a.sha != f.mac:
		return drop(dropSpoofedMAC)
	case a.spa != [4]byte{} && !f.owns(s, a.senderK):
		return drop(dropSpoofedIP)
	case a.op == arpRequest && f.ours(a.targK):
		return answer(replyARP)
	case a.op == arpRequest, a.op == arpReply:
		return verdict{action: actUplink}
	}
	return drop(dropARPMalformed)
}

// sends checks that what an instance sends comes from its own address and port.
func (f *forwarder) sends(s *sender, p *packet, now int64) reason {
	h := &p.ip
	if !f.owns(s, h.src) {
		if h.src == (table.Key{}) && h.v6 && h.proto == protoICMPv6 && h.l4 != 0 && joins(&p.icmp) {
			return dropNone // RFC 3590: a report of a station without link-local address
		}
		return dropSpoofedIP
	}
	if p.discovers() {
		if why := f.discovery(s, p); why != dropNone {
			return why
		}
	}
	if f.view().Address(h.src).Kind() == table.Dedicated {
		return dropNone
	}
	return f.sendsShared(s, p, now)
}

// sendsShared is sends for a shared address.
func (f *forwarder) sendsShared(s *sender, p *packet, now int64) reason {
	h := &p.ip
	if !h.first {
		if id, ok := f.sent.find(h.datagram(), now); !ok || id != s.id {
			return dropFragment
		}
		return dropNone
	}
	if proto, ok := transportOf(h.proto); ok {
		if w := f.view().Lookup(h.src, proto, h.sport); w.Kind() != table.Port || w.Owner() != s.id {
			return dropSpoofedPort
		}
	} else if request, _ := p.icmp.echo(h.v6); request && isICMP(h) {
		f.echoes.note(echoFlow(h.dst, h.src, p.icmp.ident), fromInstance(s.id), s.id, now)
	}
	if h.fragment {
		f.sent.note(h.datagram(), fromInstance(s.id), s.id, now)
	}
	return dropNone
}

func joins(m *icmpHeader) bool {
	return m.kind >= icmp6MLDFirst && m.kind <= icmp6MLDLast || m.kind == icmp6MLDv2
}

func isICMP(h *ipHeader) bool {
	return h.l4 != 0 && (h.proto == protoICMP && !h.v6 || h.proto == protoICMPv6 && h.v6)
}

// transportOf returns the table's number of a protocol with ports.
func transportOf(proto uint8) (table.Proto, bool) {
	switch proto {
	case protoTCP:
		return table.TCP, true
	case protoUDP:
		return table.UDP, true
	}
	return 0, false
}

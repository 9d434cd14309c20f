package netserver

import "junction/portmap/table"

// serverItself stands, among flows, for the server, which answers echo requests.
const serverItself = 0

// local decides about a packet for one of our addresses; without s it is from the wire.
func (f *forwarder) local(p *packet, s *sender, now int64) verdict {
	h := &p.ip
	w := f.view().Address(h.dst)
	if w.Kind() == table.Dedicated {
		return deliver(w.Owner())
	}
	if !h.first {
		return f.furtherFragment(h, now)
	}
	l := &f.limit
	if s != nil {
		l = s.limit
	}
	v := f.sharedAddress(p, l, now)
	if h.fragment {
		switch {
		case v.action == actDeliver:
			f.arrives(h, s, v.owner, now)
		case v.action == actAnswer && v.reply == replyEcho:
			f.arrives(h, s, serverItself, now)
		case v.action == actAnswer:
			return drop(dropNoPort) // refusals are for whole packets
		}
	}
	return v
}

// arrives notes where a first fragment goes.
func (f *forwarder) arrives(h *ipHeader, s *sender, to uint32, now int64) {
	by := fromWire(to)
	if s != nil {
		by = fromInstance(s.id)
	}
	f.arriving.note(h.datagram(), by, to, now)
}

// furtherFragment sends a fragment to where the first one went.
func (f *forwarder) furtherFragment(h *ipHeader, now int64) verdict {
	switch owner, ok := f.arriving.find(h.datagram(), now); {
	case !ok:
		return drop(dropFragment)
	case owner == serverItself:
		return answer(replyFragment)
	default:
		return deliver(owner)
	}
}

// sharedAddress decides about a packet, or its first fragment, for a shared
// address.
func (f *forwarder) sharedAddress(p *packet, l *limiter, now int64) verdict {
	h := &p.ip
	if proto, ok := transportOf(h.proto); ok {
		if w := f.view().Lookup(h.dst, proto, h.dport); w.Kind() == table.Port {
			return deliver(w.Owner())
		}
		return f.refuse(p, proto, l, now)
	}
	if !isICMP(h) {
		return drop(dropNoProtocol)
	}
	m := &p.icmp
	request, isReply := m.echo(h.v6)
	switch {
	case request:
		return answer(replyEcho)
	case isReply:
		return f.claimed(echoFlow(h.src, h.dst, m.ident), now)
	case h.v6 && m.kind == icmp6Advertise:
		return verdict{action: actHolders, addr: h.dst}
	case m.quote != nil && m.quote.src == h.dst:
		return f.quoted(m, now)
	}
	return drop(dropICMPUnclaimed)
}

// quoted delivers an ICMP error to who sent the packet that it quotes.
func (f *forwarder) quoted(m *icmpHeader, now int64) verdict {
	q := m.quote
	if !q.first {
		if id, ok := f.sent.find(q.datagram(), now); ok {
			return deliver(id)
		}
		return drop(dropICMPUnclaimed)
	}
	if proto, ok := transportOf(q.proto); ok {
		if w := f.view().Lookup(q.src, proto, q.sport); w.Kind() == table.Port {
			return deliver(w.Owner())
		}
		return drop(dropICMPUnclaimed)
	}
	return f.claimed(echoFlow(q.dst, q.src, m.ident), now)
}

// claimed delivers what belongs to an echo request to who sent that.
func (f *forwarder) claimed(k flow, now int64) verdict {
	if id, ok := f.echoes.find(k, now); ok {
		return deliver(id)
	}
	return drop(dropICMPUnclaimed)
}

// refuse answers a packet for a port that nobody has, as a host would.
func (f *forwarder) refuse(p *packet, proto table.Proto, l *limiter, now int64) verdict {
	if p.dstMAC.group() || p.ip.group || p.ip.src == (table.Key{}) {
		return drop(dropNoPort)
	}
	if !l.allow(now) {
		return drop(dropLimited)
	}
	if proto == table.TCP {
		return answer(replyReset)
	}
	return answer(replyNoPort)
}

package netserver

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"junction/portmap/table"
)

func seeds(f *testing.F) {
	fragment := in(peer6, shared6, protoUDP, udp(5, 80))
	fragment.more = true
	for _, b := range [][]byte{
		arp(arpRequest, peerMAC, peer4, shared4),
		in(peer4, shared4, protoTCP, tcp(5, 80, header.TCPFlagSyn)).bytes(),
		out(shared4, peer4, protoUDP, udp(80, 5, 1, 2, 3)).bytes(),
		out(shared6, peer6, protoTCP, tcp(80, 5, header.TCPFlagAck)).bytes(),
		in(peer4, shared4, protoICMP, icmp(icmpEcho, 0, 1)).bytes(),
		in(peer6, netip.MustParseAddr("ff02::1:ff00:2"), protoICMPv6, solicit(shared6)).bytes(),
		in(peer6, shared6, protoICMPv6, quoting(icmp6Unreachable, 1, out(shared6, peer6, protoUDP, udp(80, 5)))).bytes(),
		in(peer6, shared6, extHopByHop, append([]byte{extDest, 0, 0, 0, 0, 0, 0, 0, protoUDP, 0, 0, 0, 0, 0, 0, 0}, udp(5, 80)...)).bytes(),
		fragment.bytes(),
		toGroup(out(shared4, group4, protoIGMP, report3(joining(4, group4), joining(6, group4, peer4)))).bytes(),
		toGroup(out(shared6, group6, protoICMPv6, report3(joining(3, group6, peer6), joining(4, group6)))).bytes(),
	} {
		f.Add(b, 0)
	}
}

// FuzzForward throws any bytes at parser, decisions and answers, as from the
// wire and as from an instance. What an instance gets through is its own.
func FuzzForward(f *testing.F) {
	seeds(f)
	fwd := newForwarder(f)
	f.Fuzz(func(t *testing.T, b []byte, tail int) {
		var p packet
		head := append([]byte{}, b[:min(len(b), headLen)]...)
		length := len(head) + min(max(tail, 0), 1<<16)
		if p.parse(head, length) != dropNone {
			return
		}
		if p.ether != etherARP {
			require.LessOrEqual(t, p.ip.end, length)
			require.LessOrEqual(t, p.ip.l4, p.ip.end)
		}
		if p.reports() {
			groups := 0
			p.reported(head, func(table.Key, bool) { groups++ })
			require.Less(t, groups, headLen/8)
		}
		for _, s := range []*sender{nil, &one, &three} {
			v := fwd.ingress(&p, 1)
			if s != nil {
				v = fwd.egress(s, &p, 1)
				checkSender(t, fwd, s, &p, v)
			}
			checkVerdict(t, fwd, &p, head, v)
		}
	})
}

// checkSender repeats the egress check in other words.
func checkSender(t *testing.T, f *forwarder, s *sender, p *packet, v verdict) {
	if v.action == actDrop {
		return
	}
	require.Equal(t, ourMAC, p.srcMAC)
	if p.ether == etherARP || p.ip.src == (table.Key{}) {
		return
	}
	src := p.ip.src.Addr()
	if s.id == three.id {
		require.Contains(t, []netip.Addr{dedicated4, dedicated6}, src)
		return
	}
	require.Contains(t, []netip.Addr{shared4, shared6}, src)
	if p.ip.first && (p.ip.proto == protoTCP || p.ip.proto == protoUDP) {
		require.EqualValues(t, 79+s.id, p.ip.sport)
	}
}

func checkVerdict(t *testing.T, f *forwarder, p *packet, head []byte, v verdict) {
	switch v.action {
	case actDrop:
		require.NotEmpty(t, v.reason.String())
	case actDeliver:
		require.Contains(t, []uint32{1, 2, 3}, v.owner)
	case actAnswer:
		w := newWorker(&Server{}, nil)
		w.s.fwd.mac, w.pkt = f.mac, *p
		w.s.fwd.table.Store(f.view())
		w.s.uplinks = []outlet{{q: sinkhole{}, uplink: true, tap: &tapPoint{}}}
		w.answer(v.reply, append([]byte{}, head...), nil)
		w.letGo()
	}
}

// sinkhole takes everything.
type sinkhole struct{}

func (sinkhole) Transmit(*[10]byte, [][]byte) error { return nil }
func (sinkhole) Flush() error                       { return nil }
func (sinkhole) TransmitWait() error                { return nil }

package netserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// MaxTrace is the largest number of frames of one Trace.
const MaxTrace = 100_000

// Traced tells what became of one frame.
type Traced struct {
	Time time.Time `json:"time"`
	// From is who sent it: an instance's number, or 0 for the wire.
	From  uint32 `json:"from"`
	Bytes int    `json:"length_bytes"`
	// SegmentBytes is the size of the segments that a large one stands for.
	SegmentBytes int `json:"segment_bytes,omitempty"`
	// Of its headers, as far as they could be parsed:
	SourceMAC      string         `json:"source_mac"`
	DestinationMAC string         `json:"destination_mac"`
	Protocol       string         `json:"protocol"`
	Source         netip.AddrPort `json:"source,omitzero"` // without ports: 0
	Destination    netip.AddrPort `json:"destination,omitzero"`
	Fragment       bool           `json:"fragment,omitempty"`
	// Decision is what the forwarder decided: one of drop, deliver, uplink,
	// holders, flood, all, report, or answer and of which kind.
	Decision string `json:"decision"`
	// Drop is why it, or what answers it, went nowhere.
	Drop string `json:"drop,omitempty"`
	// Hops are the places where it, its copies or what answers it, went.
	Hops []Hop `json:"hops"`
}

// Hop is one attempt to send a frame.
type Hop struct {
	To   uint32 `json:"to"`             // an instance's number, or 0 for the wire
	Drop string `json:"drop,omitempty"` // why it was not taken
}

// tracer follows a number of frames.
type tracer struct {
	left   atomic.Int64
	frames chan *Traced // has room for all
	over   chan struct{}
}

// Trace writes to w, as lines of JSON, what becomes of the next n frames,
// wherever they come from; then it closes w. A later Trace ends an earlier one.
// When it fails w is closed, too.
func (s *Server) Trace(n int, w io.WriteCloser) error {
	if n < 1 || n > MaxTrace {
		_ = w.Close()
		return fmt.Errorf("trace %d frames: want 1 to %d", n, MaxTrace)
	}
	t := &tracer{frames: make(chan *Traced, n), over: make(chan struct{})}
	t.left.Store(int64(n))
	if old := s.trace.Swap(t); old != nil {
		close(old.over)
	}
	ended := make(chan struct{})
	s.taps.Go(func() {
		defer close(ended)
		defer s.trace.CompareAndSwap(t, nil)
		t.write(n, w, s.closing)
	})
	// Closing is what ends a write that nobody reads.
	s.taps.Go(func() {
		select {
		case <-ended:
		case <-t.over:
		case <-s.closing:
		}
		_ = w.Close()
	})
	return nil
}

// write writes n frames, or as many as there are until it is over or closing.
func (t *tracer) write(n int, w io.Writer, closing <-chan struct{}) {
	out := json.NewEncoder(w)
	for range n {
		select {
		case f := <-t.frames:
			if out.Encode(f) != nil {
				return // whoever looked does so no more
			}
		case <-t.over:
			return
		case <-closing:
			return
		}
	}
}

// traceBegin follows the frame that w is about to look at, if anybody wants to
// know and it is one of the next n.
func (w *worker) traceBegin(length int) {
	t := w.s.trace.Load()
	if t == nil || t.left.Add(-1) < 0 {
		return
	}
	w.traced, w.tracer = &Traced{Time: time.Now(), Bytes: length, Decision: "drop", Hops: []Hop{}}, t
	if w.port != nil {
		w.traced.From = w.port.id
	}
	if w.hdr[1] != 0 {
		w.traced.SegmentBytes = int(w.hdr[4]) | int(w.hdr[5])<<8
	}
}

// traceEnd hands over what became of the frame.
func (w *worker) traceEnd() {
	if w.traced == nil {
		return
	}
	w.traced.describe(&w.pkt)
	w.tracer.frames <- w.traced
	w.traced, w.tracer = nil, nil
}

// dropped counts a frame that goes no further.
func (w *worker) dropped(why reason) {
	w.batch.drops[why]++
	if w.traced != nil {
		w.traced.Drop = why.String()
	}
}

// traceHop notes an attempt to send.
func (w *worker) traceHop(o *outlet, why reason) {
	if w.traced == nil {
		return
	}
	w.traced.Hops = append(w.traced.Hops, Hop{To: o.id, Drop: why.String()})
}

var actionNames = [...]string{
	actDrop: "drop", actDeliver: "deliver", actUplink: "uplink", actHolders: "holders", actFlood: "flood", actAll: "all", actReport: "report",
}

var replyNames = [...]string{
	replyARP: "answer arp", replyNDP: "answer ndp", replyEcho: "answer echo", replyReset: "answer reset",
	replyNoPort: "answer port unreachable", replyFragment: "answer echo",
}

// String is what Traced.Decision says.
func (v verdict) String() string {
	if v.action == actAnswer {
		return replyNames[v.reply]
	}
	return actionNames[v.action]
}

var protocolNames = map[uint8]string{
	protoICMP: "icmp", protoIGMP: "igmp", protoTCP: "tcp", protoUDP: "udp", protoICMPv6: "icmpv6",
}

// describe adds what the headers say.
func (t *Traced) describe(p *packet) {
	t.SourceMAC, t.DestinationMAC = net.HardwareAddr(p.srcMAC[:]).String(), net.HardwareAddr(p.dstMAC[:]).String()
	h := &p.ip
	switch p.ether {
	case etherARP:
		t.Protocol = "arp"
		t.Source = netip.AddrPortFrom(netip.AddrFrom4(p.arp.spa), 0)
		t.Destination = netip.AddrPortFrom(netip.AddrFrom4(p.arp.tpa), 0)
		return
	case etherIPv4, etherIPv6:
	default:
		t.Protocol = fmt.Sprintf("ethertype %#04x", p.ether)
		return
	}
	t.Protocol = protocolNames[h.proto]
	if t.Protocol == "" {
		t.Protocol = fmt.Sprintf("ip protocol %d", h.proto)
	}
	t.Source = netip.AddrPortFrom(h.src.Addr().Unmap(), h.sport)
	t.Destination = netip.AddrPortFrom(h.dst.Addr().Unmap(), h.dport)
	t.Fragment = h.fragment
}

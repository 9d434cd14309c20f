package netserver

import (
	"time"

	"junction/direct"
	"junction/ipc"
)

// serveUplink moves the frames of an uplink queue until the queue ends.
func (w *worker) serveUplink(q direct.Queue) error {
	frames := make([][]byte, batchFrames)
	var idle time.Time
	for {
		n, err := q.Receive(frames)
		switch {
		case n > 0:
			w.begin()
			for _, b := range frames[:n] {
				w.fromUplink(b)
				w.traceEnd()
			}
			q.Release()
			w.end(false)
			w.barriers.round(n)
			idle = time.Time{}
		case err != nil:
			return err
		case w.barriers.due():
			w.barriers.round(0)
		case w.s.spin(&idle):
		default:
			if err := q.Wait(); err != nil {
				return err
			}
			idle = time.Time{}
		}
	}
}

// fromUplink moves one frame, with the header that the device put before it.
func (w *worker) fromUplink(b []byte) {
	w.batch.In++
	w.batch.InBytes += uint64(len(b) - ipc.VnetHdrLen)
	copy(w.hdr[:], b)
	w.traceBegin(len(b) - ipc.VnetHdrLen)
	frame := b[ipc.VnetHdrLen:]
	head := frame[:min(len(frame), headLen)]
	if why := w.pkt.parse(head, len(frame)); why != dropNone {
		w.dropped(why)
		return
	}
	parts := append(w.parts[:0], frame)
	w.s.tap.frame(0, parts)
	w.carry(w.s.fwd.ingress(&w.pkt, w.now), head, parts)
}

// serveRing moves the frames of an instance until its ring ends.
func (w *worker) serveRing(e *ipc.End) error {
	views := make([]ipc.View, batchFrames)
	var idle time.Time
	unheard := 0 // rings since there was a frame
	defer w.endTurn(false)
	w.ask()
	for {
		n, err := e.ReceiveViews(views, headLen)
		if n == 0 {
			w.endTurn(false)
		}
		switch {
		case n > 0:
			w.begin()
			for i := range views[:n] {
				w.fromRing(&views[i])
				w.traceEnd()
			}
			sent, dropped := w.batch.InBytes, w.batch.dropped()
			w.end(n == batchFrames)
			e.Release() // last: a ring that is empty has sent all (see modeswitch.Drainer)
			now, pace := time.Now(), &w.port.pace
			if d := max(pace.pay(sent, now), pace.fine(dropped, droppedFine, now)); d > 0 {
				w.endTurn(false)
				e.Mute()
				pace.wait(d)
			}
			idle, unheard = time.Time{}, 0
		case err != nil:
			return err
		case w.s.spin(&idle):
		default:
			if unheard > 1 { // the first one may have been for what we saw before it
				if d := w.port.pace.fine(1, unheardFine, time.Now()); d > 0 {
					e.Mute()
					w.port.pace.wait(d)
				}
			}
			if err := e.Wait(); err != nil {
				return err
			}
			unheard++
			idle = time.Time{}
		}
	}
}

// fromRing moves one frame of an instance.
func (w *worker) fromRing(v *ipc.View) {
	head := v.Head[ipc.VnetHdrLen:]
	length := len(head) + len(v.Tail[0]) + len(v.Tail[1])
	w.batch.In++
	w.batch.InBytes += uint64(length)
	copy(w.hdr[:], v.Head)
	w.traceBegin(length)
	if why := w.s.checkOffload(&w.hdr, length); why != dropNone {
		w.dropped(why)
		return
	}
	if why := w.pkt.parse(head, length); why != dropNone {
		w.dropped(why)
		return
	}
	parts := append(w.parts[:0], head)
	for _, t := range v.Tail {
		if len(t) > 0 {
			parts = append(parts, t)
		}
	}
	w.port.tap.frame(0, parts)
	w.carry(w.s.fwd.egress(&w.port.sender, &w.pkt, w.now), head, parts)
}

// Values of struct virtio_net_hdr (include/uapi/linux/virtio_net.h).
const (
	vnetNeedsCsum = 1
	vnetGSOTCPv4  = 1
	vnetGSOTCPv6  = 4
	vnetGSOECN    = 0x80

	// minSegment is the least segment size that an instance may ask for: the
	// MSS of IPv4's smallest MTU, without options (RFC 791).
	minSegment = 28
)

// checkOffload checks the virtio_net_hdr of an instance's frame, and takes out of
// it what is not an instance's to say. Offsets are checked by who uses them:
// toWire, or the receiving instance.
func (s *Server) checkOffload(h *[ipc.VnetHdrLen]byte, length int) reason {
	h[0] &= vnetNeedsCsum
	switch h[1] &^ vnetGSOECN {
	case 0:
		if h[1] != 0 {
			return dropVnet
		}
		if length > s.maxFrame {
			return dropLong
		}
	case vnetGSOTCPv4, vnetGSOTCPv6:
		segment := int(h[4]) | int(h[5])<<8
		if length > GSOMax+ethLen || segment < minSegment || h[0] == 0 {
			return dropVnet
		}
	default:
		return dropVnet
	}
	return dropNone
}

package modeswitch

// dropReason names why a packet went no further.
type dropReason uint8

const (
	dropRxShort     dropReason = iota // too short for the vnet and Ethernet headers
	dropRxLong                        // larger than any IP packet
	dropRxBadVnet                     // vnet header contradicts the frame
	dropRxOtherHost                   // unicast to another MAC address
	dropRxUnknown                     // neither IPv4, IPv6 nor ARP
	dropRxDuplicate                   // came by both paths during an exchange
	dropRxProbe                       // of the protocol of the exchange, not for the stack
	dropTxFull                        // the queue stayed full
	dropTxLong                        // larger than the MTU and not to be segmented by the device
	dropTxClosed                      // endpoint or device closed
	dropTxQueue                       // any other error of the queue
	numDropReasons
)

var dropNames = [numDropReasons]string{
	"rx_short", "rx_long", "rx_bad_vnet", "rx_other_host", "rx_unknown_protocol", "rx_duplicate", "rx_probe",
	"tx_full", "tx_too_long", "tx_closed", "tx_queue_error",
}

// counters are the counts of one direction of one queue.
type counters struct {
	packets, bytes, passed, calls, wakes uint64
	drops                                [numDropReasons]uint64
}

func (c *counters) add(o *counters) {
	c.packets += o.packets
	c.bytes += o.bytes
	c.passed += o.passed
	c.calls += o.calls
	c.wakes += o.wakes
	for i, n := range o.drops {
		c.drops[i] += n
	}
}

// Stats counts what an endpoint did. At any moment
//
//	RxPackets = RxDelivered + RxHeld + the drops whose names begin with rx_
//	TxPackets = TxSent + TxWaiting + the drops whose names begin with tx_
type Stats struct {
	// RxPackets and RxBytes count the frames taken from the back end.
	RxPackets uint64 `json:"rx_packets"`
	RxBytes   uint64 `json:"rx_bytes"`
	// RxDelivered counts the frames handed to the stack.
	RxDelivered uint64 `json:"rx_delivered"`
	// RxHeld is how many frames wait for others that were sent before them and
	// come by another path.
	RxHeld uint64 `json:"rx_held"`
	// RxBatches counts the batches in which they came, RxSleeps how often a
	// queue's goroutine went to sleep for want of frames.
	RxBatches uint64 `json:"rx_batches"`
	RxSleeps  uint64 `json:"rx_sleeps"`
	// TxPackets and TxBytes count the frames that the stack wanted sent.
	TxPackets uint64 `json:"tx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
	// TxSent counts the frames that the back end took.
	TxSent uint64 `json:"tx_sent"`
	// TxWaiting is how many frames wait for a full device.
	TxWaiting uint64 `json:"tx_waiting"`
	// TxFlushes counts the kicks that made it send them.
	TxFlushes uint64 `json:"tx_flushes"`
	// Drops counts packets that went no further, by reason. Reasons that never
	// occurred are left out.
	Drops map[string]uint64 `json:"drops"`
}

// Stats returns a snapshot. It may be called at any time.
func (e *Endpoint) Stats() Stats {
	e.sums.Lock()
	rx, tx := e.gone.rx, e.gone.tx
	var waiting, held int
	for _, p := range *e.paths.Load() {
		p.addTo(&rx, &tx, &waiting)
	}
	if m := e.merger.Load(); m != nil {
		held = m.addTo(&rx)
	}
	e.sums.Unlock()
	e.held.addTo(&tx, &waiting)
	s := Stats{
		RxPackets: rx.packets, RxBytes: rx.bytes, RxDelivered: rx.passed, RxHeld: uint64(held), RxBatches: rx.calls, RxSleeps: rx.wakes,
		TxPackets: tx.packets, TxBytes: tx.bytes, TxSent: tx.passed, TxWaiting: uint64(waiting), TxFlushes: tx.calls,
		Drops: make(map[string]uint64),
	}
	rx.add(&tx)
	for i, n := range rx.drops {
		if n != 0 {
			s.Drops[dropNames[i]] = n
		}
	}
	return s
}

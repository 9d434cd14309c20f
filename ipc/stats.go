package ipc

import "sync/atomic"

// Stats counts the frames of one End, and their bytes without virtio_net_hdr,
// since it was attached.
//
// Every frame that Transmit took is in TxPackets once it has been flushed, or
// in Drops. A ring drops nothing: what one side has flushed, the other has
// received, or it is still there. Refused counts calls of Transmit that
// returned an error: the caller still has the frame.
type Stats struct {
	RxPackets uint64 `json:"rx_packets"`
	RxBytes   uint64 `json:"rx_bytes"`
	TxPackets uint64 `json:"tx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
	// RxSleeps and TxSleeps count the announcements of sleep, also those taken
	// back because there was something after all.
	RxSleeps uint64 `json:"rx_sleeps"`
	TxSleeps uint64 `json:"tx_sleeps"`
	// Rings counts how often the other side has been rung for: once for each of
	// its announcements at most.
	Rings uint64 `json:"rings"`
	// Breaches counts what the other side wrote and no honest one does.
	Breaches map[string]uint64 `json:"breaches"`
	Drops    map[string]uint64 `json:"drops"`
	Refused  map[string]uint64 `json:"refused"`
}

// Stats returns the counters.
func (e *End) Stats() Stats {
	r, t := &e.rx, &e.tx
	return Stats{
		RxPackets: r.packets.Load(), RxBytes: r.bytes.Load(),
		TxPackets: t.packets.Load(), TxBytes: t.bytes.Load(),
		RxSleeps: r.sleeps.Load(), TxSleeps: t.sleeps.Load(),
		Rings:    r.rings.Load() + t.rings.Load(),
		Breaches: byName(&r.breaches, &t.breaches),
		Drops:    map[string]uint64{"tx_unflushed": t.unflushed.Load()},
		Refused: map[string]uint64{
			"tx_full":      t.full.Load(),
			"tx_too_long":  t.tooLong.Load(),
			"tx_bad_frame": t.badFrame.Load(),
		},
	}
}

func byName(counts ...*[breaches]atomic.Uint64) map[string]uint64 {
	m := make(map[string]uint64, breaches)
	for b := range breaches {
		for _, c := range counts {
			m[b.String()] += c[b].Load()
		}
	}
	return m
}

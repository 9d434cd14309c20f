package netserver

// Stats is a snapshot of a server's accounts.
type Stats struct {
	// Uplink counts the frames that came from the wire, Gone those of instances
	// that have left.
	Uplink AccountStats `json:"uplink"`
	Gone   AccountStats `json:"gone"`
	// Ports counts the frames of each instance, by its number.
	Ports map[uint32]PortStats `json:"ports"`
}

// AccountStats is an Account with its drops by name.
type AccountStats struct {
	Account
	Drops map[string]uint64 `json:"drops"`
}

// PortStats counts the frames that an instance sent.
type PortStats struct {
	Name string `json:"name"`
	AccountStats
	// ToInstance counts the frames that went into its ring, with their bytes.
	ToInstance      uint64 `json:"to_instance"`
	ToInstanceBytes uint64 `json:"to_instance_bytes"`
	// FinedNS is how long in all it had to wait for what it made the server do for
	// nothing: frames that went nowhere, doorbells without a frame.
	FinedNS int64 `json:"fined_ns"`
}

func stats(a Account) AccountStats { return AccountStats{a, a.Drops()} }

// Stats returns a snapshot. Frames of batches that are under way are not in it.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	var up Account
	for _, w := range s.workers {
		a := w.account()
		up.add(&a)
	}
	out := Stats{Uplink: stats(up), Gone: stats(s.gone), Ports: make(map[uint32]PortStats)}
	for _, p := range s.ports.Load().all {
		ring := p.end.Stats()
		out.Ports[p.id] = PortStats{p.name, stats(p.work.account()), ring.TxPackets, ring.TxBytes, p.pace.total.Load()}
	}
	return out
}

// Beats returns, for each worker, a number that changes with each batch and is
// odd while the worker is at one: a worker whose number stays odd hangs.
func (s *Server) Beats() (beats []uint64) {
	for _, w := range s.workers {
		beats = append(beats, w.beats.Load())
	}
	for _, p := range s.ports.Load().all {
		beats = append(beats, p.work.beats.Load())
	}
	return beats
}

package sim

import cs "junction/coresched"

// Result is what came of a run.
type Result struct {
	// Completed requests that were counted.
	Completed int
	// Short and Long are the times from arrival to end of these.
	Short, Long Hist
	// Missed is how many requests, of all, ended after their deadline or were
	// past it when the run ended.
	Missed int
	// Elapsed is the virtual time of the whole run.
	Elapsed cs.Time
	// Utilisation is the share of the cores' time in which tasks executed,
	// Switching the one lost between tasks.
	Utilisation, Switching float64
	// Agent is the share of the run in which agents worked: of one core for
	// the agent of all, else of all cores together.
	Agent float64
	// Runtime is the time that each instance's tasks executed.
	Runtime []cs.Time
	// Counts are the enclave's.
	Counts cs.Counts
}

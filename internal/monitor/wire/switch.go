package wire

import (
	"junction/direct"
	"junction/direct/steer/scope"
	"junction/switch/protocol"
)

// Switch is a message of the mode switch.
type Switch struct {
	protocol.Message
	// Queue describes the instance's own queue, whose files come beside the
	// message: Prepare to direct mode.
	Queue *direct.Export `json:"queue,omitempty"`
	// Ports are the local ports that the queue is for; nil: all.
	Ports *scope.Ports `json:"ports,omitempty"`
	// Report is what the instance measured: Finished and Aborted.
	Report *SwitchReport `json:"report,omitempty"`
}

// SwitchReport says what a switch did to an instance's packets.
type SwitchReport struct {
	// BlackoutUS is the longest time, in microseconds, for which the switch kept
	// a packet back: one to be sent, while the old path was drained, or one that
	// was received before another that had been sent earlier.
	BlackoutUS float64 `json:"blackout_us"`
	// HeldTx and HeldRx are how many packets were kept back.
	HeldTx uint64 `json:"held_tx"`
	HeldRx uint64 `json:"held_rx"`
	// Of the frames that came during the switch: how many came by the old path
	// after the first had come by the new one, never came, came twice, and were
	// delivered after later ones.
	InFlight   uint64 `json:"in_flight"`
	Lost       uint64 `json:"lost"`
	Duplicates uint64 `json:"duplicates"`
	Reordered  uint64 `json:"reordered"`
}

// SwitchOrder asks for a switch of an instance, which is pinned then: the policy
// (Auto) leaves it alone.
type SwitchOrder struct {
	Target
	Mode protocol.Mode `json:"mode"`
	// Ports, with direct mode, are the local ports that are to be in it, while the
	// others stay with the network server; nil: all.
	Ports *scope.Ports `json:"ports,omitempty"`
	// Wait: until a queue is free and no other switch is under way.
	Wait bool `json:"wait,omitempty"`
}

// AutoSettings are the policy's that gives queues to the busiest instances.
type AutoSettings struct {
	On bool `json:"on"`
	// Queues is how many instances may have one at once, pinned ones included.
	Queues int `json:"queues"`
	// Rate is from how many packets per second an instance is worth a queue.
	Rate float64 `json:"rate_pps"`
}

// Auto is the order, of the verb "auto", to begin or end the policy. What is nil
// stays. "unpin", with a Target, leaves an instance to it that a SwitchOrder has
// pinned.
type Auto struct {
	On     bool     `json:"on"`
	Queues *int     `json:"queues,omitempty"`
	Rate   *float64 `json:"rate_pps,omitempty"`
}

// SwitchStep is a step of a switch and how long it took.
type SwitchStep struct {
	Name string  `json:"name"`
	US   float64 `json:"us"`
}

// SwitchResult says how a switch ended.
type SwitchResult struct {
	Schema int           `json:"schema"`
	ID     uint32        `json:"id"`
	Name   string        `json:"name"`
	From   protocol.Mode `json:"from"`
	To     protocol.Mode `json:"to"`
	// Mode is the one that the instance is in now, Reason why that is not To.
	Mode   protocol.Mode `json:"mode"`
	Reason string        `json:"reason,omitempty"`
	// NoQueue: the reason is that all queues are in use.
	NoQueue bool `json:"no_queue,omitempty"`
	// Ports are the local ports that are in direct mode now, if only some are.
	Ports *scope.Ports `json:"ports,omitempty"`
	// ViaServer: the ports in direct mode were others, so it went by way of server
	// mode; steps and figures are of both switches.
	ViaServer bool `json:"via_server,omitempty"`
	// TotalUS is how long it took, in microseconds; packets flowed meanwhile.
	TotalUS float64      `json:"total_us"`
	Steps   []SwitchStep `json:"steps"`
	SwitchReport
}

// Package monitor is the trusted part of server mode: it gives instances their
// leases, owns the portmap, makes rings and hands them over, and keeps a network
// server running. No packet passes through it.
//
// One lock orders all changes. What a caller is told is true when it is told:
// the table is written before the answer.
package monitor

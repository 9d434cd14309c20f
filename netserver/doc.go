// Package netserver is the network server: it forwards Ethernet frames between
// the uplink, a NIC's queues, and the packet rings of instances, and from ring to
// ring. It holds no TCP: connections live in the instances, so that the
// server may be killed and started again at any time.
//
// Everything that a frame decides is pure: parse finds what matters in its
// headers, forwarder decides by the portmap's table where it goes, and the
// answer functions make the few frames that the server sends itself (ARP,
// NDP, echo, refusals). Around that core, one worker for each source, an
// uplink queue or an instance's ring, takes batches and puts frames where
// they go.
//
// # Addresses
//
// Towards the wire all instances are one station: they share the uplink's MAC
// address, and which of them a frame is for follows from its IP addresses and
// ports alone. That works on any NIC, and with one shared IP address there is no
// other way.
//
// # Accounts
//
// For each server, exactly: In + Made = Out + Answered + the sum of Drops,
// where Made counts answers, questions, and all copies and segments of a frame
// but the first.
package netserver

// Package control is the connection between the monitor and the processes that
// hold leases from it: instances, network servers, operators. Messages travel
// over a Unix SOCK_SEQPACKET socket, which keeps their bounds, with file
// descriptors beside them.
//
// A message is 8 bytes of header, little-endian, and a body that depends on its
// type:
//
//	0  uint16  version of this format, 1
//	2  uint16  type
//	4  uint32  id, which an answer repeats; 0 for a message that wants none
//
// Types below FirstRaw are defined here; those from there on are opaque bytes
// whose meaning is their users' affair. Every message has exactly one encoding.
//
// # Leases
//
// A connection is a lease: when either side closes it or dies, by whatever
// signal, the other's Receive returns io.EOF at once. Whoever grants or holds
// something for as long as a connection lasts keeps a Receive pending on it.
//
// # Trust
//
// Neither side trusts what the other sends. A message that is malformed, too
// long, or comes with descriptors it should not have ends the connection, and
// all its descriptors are closed. Who the other side is tells the kernel, not
// the message: see Conn.Peer.
package control

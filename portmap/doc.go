// Package portmap decides who owns (protocol, local address, port).
//
// A Map is a deterministic state machine without I/O, clock or lock: the
// monitor, its one user, calls its methods for what instances ask, tells it the
// time with Advance, and after each call hands Changes to a table.Writer, before it
// answers the instance. The same calls with the same Options give the same results.
//
// # Addresses
//
// Of a shared address each port of TCP and of UDP belongs to one instance or
// to nobody. A dedicated address belongs to one instance as a whole. An instance's
// addresses, of both sorts, are fixed for its life by its Lease. A wildcard bind
// takes the port on all addresses of the family that the instance has ("::"
// without V6Only: of both families), on all of them or on none. Loopback, group
// and broadcast addresses are not the portmap's: an instance's own stack decides.
//
// # Sockets
//
// Sockets stand for holders of a local port, by numbers that the instance
// chooses. Between instances a port is exclusive. Within an instance the rules of
// Linux (inet_csk_bind_conflict, udp_lib_lport_inuse) say which sockets may share it
// by SO_REUSEADDR and SO_REUSEPORT. A listener and the connections it accepted
// hold its port as one socket: who closes a listener with live connections calls
// Listen(…, false), and Close when the last of them ended. A port on which
// connections wait in TIME_WAIT is closed with that time and stays its instance's
// until then. Remote addresses play no part: an instance may connect one of its
// ports to many.
//
// No instance gets all ports of a shared address (Options.Share): beyond its
// share, ports of the ephemeral range, or of the others, are kept for the rest.
//
// # Leases
//
// Leave ends an instance's lease and frees all it had, TIME_WAIT included, at
// once. After a monitor's restart, Restore gives every port to the instance that
// had it, which Joins again, binds its sockets again and ends with Settle; an
// instance that stays Absent is to Leave.
//
// Errors wrap the errno (unix.Errno) that the program is to see.
package portmap

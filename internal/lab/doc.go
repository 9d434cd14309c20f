// Package lab makes small networks of Linux network namespaces and veth pairs
// for tests, the demonstration and the benchmarks, and takes them away again.
//
// A Lab has a client namespace and a server namespace. The NIC of the server,
// ServerNIC, carries no address: it belongs to the instance under test. The
// client's, ClientNIC, does. Between them lies a veth pair, or, when
// Options.Impair is set, a middle namespace whose forwarder loses, delays and
// reorders frames.
//
// Nothing outside the namespaces is touched, and nothing stays behind: Close
// kills what runs inside and removes everything. A lab whose owner died without
// Close, even by SIGKILL, is removed by the next New or Sweep: its owner held a
// file lock that the kernel released with it.
//
// Root is needed (CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW).
package lab

// Package plugin runs a policy in a process of its own.
//
// hashicorp/go-plugin starts the process, says when it is ready, carries a few
// control calls and its log, and ends it. Scheduling itself goes another way, and
// never through a call: messages and results in one ipc ring, transactions in the
// other, status words in a page that the policy can only read.
//
// The two sides are a Driver, beside the Machine, and Serve, in the policy's
// process. A Driver believes nothing: what comes out of the ring is parsed, and
// checked as any transaction is. A policy that ends, hangs or talks nonsense
// loses its enclave, and nothing else happens to the tasks in it.
//
// # What goes through the rings
//
// Frames of a ring have a header of 16 bytes: kind, grouping, a 16-bit count, a
// 32-bit number, and for batches the agent's core. All is little-endian.
//
//	snapshot  a part of what Enclave.Rescan returned: messages of 64 bytes
//	start     its end: the enclave's cores, 128 bytes, and the agents' 32-bit sequence numbers
//	messages  messages of 64 bytes
//	results   one byte for each transaction of the batch with this number
//	ping      nothing; it is read like any other, which shows that the policy does read
//	batch     transactions of 16 bytes, by the policy, no more than it has cores
//
// A policy has one batch in flight at most. Messages that come before its
// results were sent before it was committed, or after; they are heeded after it
// in either case, which the sequence numbers in them make right.
package plugin

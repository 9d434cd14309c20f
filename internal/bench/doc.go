// Package bench measures junction_run beside the same unmodified programs run
// natively and in runsc, in one run and on one veth, and runs the demonstration.
//
// A System is a way of running a program: Native, Runsc or Junction. A case
// starts its program under each system in turn, round after round (A B C A B C),
// so that what disturbs the machine disturbs all of them, and reports medians.
// Ratios are medians of the rounds' own ratios. Suite Network measures servers
// and clients on a wire, suite Micro single operations of the kernel and programs
// that only compute.
//
// Servers run in the server namespace of a lab (package internal/lab), clients
// in the client namespace; nothing outside the lab is touched.
//
// CPU time is that of the server's process tree. What the kernel does in
// software interrupts is charged to whoever was running: for a native server
// much of the receive path runs on the client's account, for AF_XDP in copy mode
// much of the client's runs on the server's. Ratios of CPU time are to be read
// with that in mind.
package bench

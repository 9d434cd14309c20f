// Package protocol is how an instance is switched between server and direct mode
// while packets flow: two state machines that make no system call and have no
// clock. Events go in, actions come out; whoever runs them carries the actions
// out, in order, and tells what came of them as further events. Time passes by
// Timeout events.
//
// The Coordinator is the monitor's, one for each instance; the Participant is
// the instance's. The network server, and the NIC, only do what they are asked:
// send a mark, a frame that comes by one path behind all that took it before.
//
// # Steps
//
//	           monitor                         instance
//	make       makes a queue (to direct)
//	prepare    Prepare, mark 0 by the new path → uses both paths, merges; has seen the mark
//	                                           ← Prepared
//	align      stamps frames, Align,
//	           mark 1 by the old path          → what comes by the old path has a stamp now
//	                                           ← Aligned
//	move       steers to the new path, Move,   → sends what it has by the old path, then
//	           mark 2 by the old path             by the new; has seen the mark
//	                                           ← Moved
//	finish     Finish                          → gives the old path up (a queue, not the ring)
//	                                           ← Finished
//	           stamps no more, frees the queue (to server)
//
// Make before break: from prepare to finish both paths carry frames. Nothing is
// lost with the old path, since it is given up after mark 2 has come by it, and
// nothing is out of order: received frames are put in order by their stamps, and
// what is sent leaves by the new path when the old one is empty.
//
// # Failures
//
// Until Finish is sent, whatever fails or takes too long makes the monitor steer
// back and send Abort, with mark 3 behind what the new path still carries; the
// instance goes back to the mode before. From then on there is only forward. A
// queue is freed when the instance has said that it does not use it any more,
// or has ended: one that does not answer keeps it, and is switched no more, but
// whoever asked for the switch is told in time.
//
// A queue that somebody deletes sends no marks and nothing else: the instance goes to
// server mode at once.
//
// A network server that ends takes marks with it: the switch is rolled back. A
// monitor that ends leaves the instance with both paths; the next one sends
// Abort to server mode, whichever the instance was going to.
package protocol

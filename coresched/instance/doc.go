// Package instance is the memory that the scheduler of cores and an instance
// share: a page with what the instance wants and what it was granted, and a
// doorbell.
//
// An instance has kthreads: how many threads of its programs may execute at
// once. It shows on the page how many it could use, and rings when it wants more
// than it said last, or nothing more; the scheduler writes how many it grants, and rings.
// An instance that has nothing to do neither rings nor is looked at.
//
// Neither side trusts the other: each value is one word, copied once, and made to
// fit. An instance that lies gets cores that it does not use, or none; that it uses
// none that it did not get is not left to its word (package excess). The page lies in
// a sealed memfd, so that no access can fault, and the doorbell is a pair of sockets
// for the reasons given in package ipc.
package instance

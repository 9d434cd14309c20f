// Package load asks a server again and again on connections that stay open, and
// compares every byte of every answer with what it must be.
//
// One goroutine serves all connections, on an epoll instance of its own: the load
// is to cost the machine little beside the server. What it sees is divided into
// phases, which its owner ends with Mark, so that one load shows what a server
// did before, while and after something was done to it.
package load

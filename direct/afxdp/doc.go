// Package afxdp drives a NIC through AF_XDP sockets
// (Documentation/networking/af_xdp.rst of the Linux kernel): for each queue
// one umem and one socket with its four rings, and for the device one XDP
// program that redirects every frame to the socket of the queue it came in on.
// A frame whose queue has no socket is dropped: the host's stack never sees
// the instance's traffic.
//
// The program hangs on an unpinned bpf_link, so that the kernel takes
// everything back when the process ends, however it ends.
//
// The rings are shared memory. This package reads each field once into private
// memory, checks the copy, and uses the copy: index arithmetic is in ring.go,
// the ownership of buffers in frames.go, both without any access to mapped
// memory.
package afxdp

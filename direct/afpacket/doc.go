// Package afpacket drives a NIC through packet sockets (packet(7)), for kernels
// and NICs that offer neither AF_XDP nor macvtap. Frames bear a virtio_net_hdr
// both ways (PACKET_VNET_HDR), so that the kernel cuts segments and fills in
// checksums, and gives those of local senders whole.
//
// Frames are sent past the queueing discipline (PACKET_QDISC_BYPASS). What
// arrives the socket sees first; a program at the NIC's tcx hook then drops it,
// so that the host's own stack does not answer too. The sockets and the program
// end with the process.
//
// Several datagrams in one frame, as a local sender's kernel may have them, are cut
// here. Frames of VLANs are left out: the kernel takes their tags off, and without it
// they would look like others.
package afpacket

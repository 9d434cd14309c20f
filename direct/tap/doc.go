// Package tap drives TAP devices: one that it creates for the host, one that
// exists, or a macvtap in passthru mode on top of any other NIC
// (Documentation/networking/tuntap.rst of the Linux kernel). All have a
// virtio_net_hdr in front of each frame, with which checksums and the
// segmentation of TCP stay with the kernel: frames are up to 64 KiB long, both
// ways.
//
// Each frame is one system call; what makes bulk transfers cheap is their
// length.
package tap

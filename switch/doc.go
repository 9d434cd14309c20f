// Package modeswitch is an instance's one link endpoint: below it the queues
// of a back end (NIC queues, or the rings of a network server), above it the TCP/IP stack. The folder is
// called switch, which Go keeps for itself.
//
// Frames cross the border between endpoint and back end as virtio-net
// describes them: a struct virtio_net_hdr of 10 bytes (VIRTIO 1.3, section
// 5.1.6), then the Ethernet frame, so that partial checksums and TCP segments
// of up to 64 KiB pass through when the device can take them.
package modeswitch

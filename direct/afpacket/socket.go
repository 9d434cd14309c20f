package afpacket

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Sizes of a socket's buffers, which the kernel doubles, in bytes as it counts them (a small
// frame takes about 768).
const (
	receiveBuffer = 4 << 20
	sendBuffer    = 4 << 20
)

// openSocket returns a socket that gives and takes all frames of an interface;
// with all also those to other stations.
func openSocket(ifindex int, all bool) (int, error) {
	// Protocol 0: nothing arrives from other interfaces before the bind.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := configure(fd, ifindex, all); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func configure(fd, ifindex int, all bool) error {
	for _, o := range []struct{ option, value int }{
		{unix.PACKET_VNET_HDR, 1}, {unix.PACKET_IGNORE_OUTGOING, 1}, {unix.PACKET_QDISC_BYPASS, 1},
	} {
		if err := setOption(fd, o.option, o.value); err != nil {
			return err
		}
	}
	for option, size := range map[int]int{unix.SO_RCVBUFFORCE: receiveBuffer, unix.SO_SNDBUFFORCE: sendBuffer} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, size); err != nil {
			return fmt.Errorf("size of a buffer: %w", err)
		}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, noVLAN()); err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	kind := uint16(unix.PACKET_MR_ALLMULTI)
	if all {
		kind = unix.PACKET_MR_PROMISC
	}
	member := unix.PacketMreq{Ifindex: int32(ifindex), Type: kind}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &member); err != nil {
		return fmt.Errorf("receive multicast: %w", err)
	}
	const protocol = uint16(unix.ETH_P_ALL)
	return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifindex, Protocol: protocol<<8 | protocol>>8})
}

func setOption(fd, option, value int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option, value); err != nil {
		return fmt.Errorf("packet socket option %d: %w", option, err)
	}
	return nil
}

// noVLAN is a classic BPF program that takes frames without a VLAN tag.
func noVLAN() *unix.SockFprog {
	const tagPresent = 0xfffff000 + 48 // SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: tagPresent},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
}

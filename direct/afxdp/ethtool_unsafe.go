package afxdp

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// ethtoolChannels is struct ethtool_channels (linux/ethtool.h).
type ethtoolChannels struct {
	cmd                                  uint32
	maxRX, maxTX, maxOther, maxCombined  uint32
	rxCount, txCount, other, combinedRXT uint32
}

func (c *ethtoolChannels) counts() nic.Channels {
	return nic.Channels{RX: c.rxCount, TX: c.txCount, Other: c.other, Combined: c.combinedRXT}
}

func (c *ethtoolChannels) set(n nic.Channels) {
	c.rxCount, c.txCount, c.other, c.combinedRXT = n.RX, n.TX, n.Other, n.Combined
}

// rxQueues returns how many queues receive.
func (c *ethtoolChannels) rxQueues() int { return int(c.rxCount + c.combinedRXT) }

// String names the receive queues as ethtool -L does.
func (c ethtoolChannels) String() string {
	if c.combinedRXT > 0 && c.rxCount > 0 {
		return fmt.Sprintf("rx %d combined %d", c.rxCount, c.combinedRXT)
	}
	if c.combinedRXT > 0 {
		return fmt.Sprintf("combined %d", c.combinedRXT)
	}
	return fmt.Sprintf("rx %d", c.rxCount)
}

// channelsIoctl does cmd (ETHTOOL_GCHANNELS or ETHTOOL_SCHANNELS) on the NIC
// name through socket fd, whose network namespace counts.
//
// Invariant: request has the layout of struct ifreq with ifr_data, a pointer
// that the kernel follows only during the call; both structures are live until
// then.
func channelsIoctl(fd int, name string, cmd uint32, c *ethtoolChannels) error {
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	if len(name) >= unix.IFNAMSIZ {
		return fmt.Errorf("NIC name %q is too long: %w", name, unix.EINVAL)
	}
	copy(request.name[:], name)
	c.cmd = cmd
	request.data = unsafe.Pointer(c)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}

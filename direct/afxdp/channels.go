package afxdp

import (
	"fmt"

	"golang.org/x/sys/unix"

	"junction/direct/internal/nic"
)

// channels sets the number of receive queues of a NIC.
type channels struct {
	link     *nic.Link
	fd       int
	original ethtoolChannels
	known    bool // the driver tells its channels
	changed  bool
}

// newChannels reads the NIC's channels in the calling thread's namespace. Those
// that it had before, if not nil, are the ones to restore.
func newChannels(l *nic.Link, before *nic.Channels) (*channels, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("read the channels of %s: %w", l.Name(), err)
	}
	c := &channels{link: l, fd: fd}
	err = channelsIoctl(fd, l.Name(), unix.ETHTOOL_GCHANNELS, &c.original)
	c.known = err == nil && c.original.rxQueues() > 0
	if now := c.original.counts(); c.known && before != nil && *before != now {
		c.original.set(*before)
		c.changed = true
	}
	return c, nil
}

// counts returns the original numbers; nil if the driver does not tell.
func (c *channels) counts() *nic.Channels {
	if !c.known {
		return nil
	}
	n := c.original.counts()
	return &n
}

// total returns the number of queues on which the NIC may receive.
func (c *channels) total() int {
	if c.known {
		return c.original.rxQueues()
	}
	return max(1, c.link.Attrs().NumRxQueues)
}

// reduce makes the NIC receive on n queues only, fewer than it has now.
func (c *channels) reduce(n int) error {
	if !c.known {
		return unix.EOPNOTSUPP
	}
	want := c.original
	if want.combinedRXT > 0 {
		want.rxCount = min(want.rxCount, uint32(n)-1)
		want.combinedRXT = uint32(n) - want.rxCount
	} else {
		want.rxCount = uint32(n)
	}
	err := channelsIoctl(c.fd, c.link.Name(), unix.ETHTOOL_SCHANNELS, &want)
	c.changed = err == nil
	return err
}

// restore takes reduce back.
func (c *channels) restore() {
	if !c.changed {
		return
	}
	original := c.original
	if err := channelsIoctl(c.fd, c.link.Name(), unix.ETHTOOL_SCHANNELS, &original); err != nil {
		c.link.Warn("the NIC keeps fewer queues than it had (%v: the process may have given up its privileges); to set them again: ethtool -L %s %s",
			err, c.link.Name(), original)
		return
	}
	c.changed = false
}

func (c *channels) close() {
	c.restore()
	_ = unix.Close(c.fd)
}

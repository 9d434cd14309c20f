package nic

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Quiet keeps the host's network stack from using a device of l's network
// namespace, the calling thread's.
func (l *Link) Quiet(name string) error {
	d, err := l.Netlink.LinkByName(name)
	if err == nil {
		err = l.Netlink.LinkSetARPOff(d)
	}
	if err != nil {
		return fmt.Errorf("set ARP of %s off: %w", name, err)
	}
	for path, value := range map[string]string{
		"ipv6/conf/" + name + "/disable_ipv6": "1", "ipv4/conf/" + name + "/forwarding": "0",
	} {
		err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("keep the host's stack off %s: %w", name, err)
		}
	}
	return nil
}

package direct

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxQueues is how many queues ParseNIC accepts; more is a typing error.
const maxQueues = 1024

// ParseNIC splits "IF" or "IF:QUEUES". queues is 0 if s names none. The name
// is checked as the kernel does (dev_valid_name), so that it can be used in
// paths and messages.
func ParseNIC(s string) (name string, queues int, err error) {
	name, count, ok := strings.Cut(s, ":")
	if err := checkName(name); err != nil {
		return "", 0, fmt.Errorf("NIC %q: %w; give IF or IF:QUEUES, as in eth1:2", s, err)
	}
	if !ok {
		return name, 0, nil
	}
	queues, err = strconv.Atoi(count)
	if err != nil || queues < 1 || queues > maxQueues || count[0] == '+' {
		return "", 0, fmt.Errorf("NIC %q: the number of queues must be 1 to %d, not %q", s, maxQueues, count)
	}
	return name, queues, nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("no name")
	case len(name) >= unix.IFNAMSIZ:
		return fmt.Errorf("the name is longer than %d bytes", unix.IFNAMSIZ-1)
	case name == "." || name == "..":
		return fmt.Errorf("not a name")
	}
	for _, r := range name {
		if r <= ' ' || r > '~' || strings.ContainsRune("/:%", r) {
			return fmt.Errorf("%q in the name", r)
		}
	}
	return nil
}

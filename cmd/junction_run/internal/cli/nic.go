package cli

import (
	"errors"
	"strconv"
	"strings"
)

func (f *flags) setNIC(s string) error {
	name, count, ok := strings.Cut(s, ":")
	if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ \t\n") {
		return errors.New("accepted: IF or IF:QUEUES")
	}
	f.nic, f.queues = name, 0
	if !ok {
		return nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > 1024 {
		return errors.New("accepted: IF:QUEUES with QUEUES from 1")
	}
	f.queues = n
	return nil
}

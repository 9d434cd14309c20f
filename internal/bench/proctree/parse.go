package proctree

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

var errFormat = errors.New("not in the kernel's format")

// stat is what is needed of /proc/PID/stat.
type stat struct {
	pid, ppid int
	cpu       time.Duration // own and that of children waited for
}

// parseStat parses /proc/PID/stat. The second field is the command's name in
// parentheses and may itself hold spaces and parentheses.
func parseStat(text string) (stat, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("stat: %w", errFormat)
	}
	rest := strings.Fields(text[end+1:]) // from the third field, the state
	if len(rest) < 15 {
		return stat{}, fmt.Errorf("stat: %w", errFormat)
	}
	var s stat
	var err1, err2 error
	s.pid, err1 = strconv.Atoi(strings.TrimSpace(text[:open]))
	s.ppid, err2 = strconv.Atoi(rest[1])
	if err := errors.Join(err1, err2); err != nil {
		return stat{}, fmt.Errorf("stat: %w", err)
	}
	for _, field := range rest[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("stat: %w", err)
		}
		s.cpu += time.Duration(n) * tick
	}
	return s, nil
}

// add adds the sums of a smaps_rollup file. One without any, a kernel thread's
// or a zombie's, counts for nothing.
func (m *Memory) add(rollup string) error {
	found := 0
	for line := range strings.Lines(rollup) {
		to := m.field(line)
		if to == nil {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			return fmt.Errorf("smaps_rollup: %w: %q", errFormat, line)
		}
		n, err := strconv.ParseUint(f[1], 10, 53)
		if err != nil {
			return fmt.Errorf("smaps_rollup: %w", err)
		}
		*to += n * 1024
		found++
	}
	if found > 0 {
		m.Processes++
	}
	return nil
}

// field returns what a line of smaps_rollup is added to.
func (m *Memory) field(line string) *uint64 {
	name, _, _ := strings.Cut(line, ":")
	switch name {
	case "Rss":
		return &m.RSS
	case "Pss":
		return &m.PSS
	case "Private_Clean", "Private_Dirty":
		return &m.Private
	}
	return nil
}

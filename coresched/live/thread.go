package live

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// Errors of Push that callers tell apart.
var (
	// ErrThread: no such thread.
	ErrThread = errors.New("no such thread")
	// ErrRefused: a thread that is not to be touched.
	ErrRefused = errors.New("cannot take this thread")
)

// affinity returns the cores that a thread may run on.
func affinity(tid int) (s cs.CPUSet, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(tid, &set); err != nil {
		return s, err
	}
	for c := range cs.CPU(cs.MaxCPUs) {
		if set.IsSet(int(c)) {
			s.Add(c)
		}
	}
	return s, nil
}

func notThere(tid int, err error) error {
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w: %d", ErrThread, tid)
	}
	return err
}

func setAttr(tid int, attr *unix.SchedAttr) error { return unix.SchedSetAttr(tid, attr, 0) }

// run gives a member its class on one core.
func (m *member) run(c cs.CPU) error {
	m.cores = cs.CPUSet{}
	m.cores.Add(c)
	return m.schedule(unix.SCHED_NORMAL)
}

// park lets a member have only what nobody else wants of its enclave's cores.
func (m *member) park() error {
	m.cores = m.enclave.e.CPUs()
	return m.schedule(unix.SCHED_IDLE)
}

func (m *member) schedule(class uint32) error {
	m.class = class
	attr, set := m.attr(class), toLinux(&m.cores)
	return errors.Join(unix.SchedSetaffinity(m.tid, &set), setAttr(m.tid, &attr))
}

func toLinux(s *cs.CPUSet) (set unix.CPUSet) {
	for c := s.Next(0); c != cs.NoCPU; c = s.Next(c + 1) {
		set.Set(int(c))
	}
	return set
}

// stat is what /proc says of a thread.
type stat struct {
	comm    string
	state   byte
	flags   uint64
	started uint64 // ticks after the machine's start: tells a thread from its number's next holder
	ticks   uint64 // of CPU time
	tgid    int
}

const kernelThread = 0x00200000 // PF_KTHREAD

// readStat reads /proc/TID/stat, for threads as well as processes, and to which
// process a thread belongs.
func readStat(tid int) (s stat, err error) {
	if s, err = readStatAlone(tid); err != nil {
		return s, err
	}
	s.tgid, err = readTGID(tid)
	return s, err
}

// readStatAlone is readStat without the thread's process.
func readStatAlone(tid int) (s stat, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return s, fmt.Errorf("%w: %d", ErrThread, tid)
	}
	if err != nil {
		return s, err
	}
	if s, err = parseStat(b); err != nil {
		return s, fmt.Errorf("/proc/%d/stat: %w", tid, err)
	}
	return s, nil
}

var errStat = errors.New("not in the known form")

// parseStat reads a line of proc_pid_stat(5). The name in it may hold anything.
func parseStat(b []byte) (s stat, err error) {
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || shut < open {
		return s, errStat
	}
	s.comm = string(b[open+1 : shut])
	f := strings.Fields(string(b[shut+1:]))
	if len(f) < 20 || len(f[0]) != 1 {
		return s, errStat
	}
	s.state = f[0][0]
	var utime, stime uint64
	for _, n := range []struct {
		into *uint64
		text string
	}{{&s.flags, f[6]}, {&utime, f[11]}, {&stime, f[12]}, {&s.started, f[19]}} {
		if *n.into, err = strconv.ParseUint(n.text, 10, 64); err != nil {
			return s, errStat
		}
	}
	s.ticks = utime + stime
	return s, nil
}

func readTGID(tid int) (int, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return 0, fmt.Errorf("%w: %d", ErrThread, tid)
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "Tgid:"); ok {
			return strconv.Atoi(strings.TrimSpace(text))
		}
	}
	return 0, errStat
}

// canRun tells whether a thread in this state wants a core.
func (s *stat) canRun() bool { return s.state == 'R' }

// gone tells whether it will never want one again.
func (s *stat) gone() bool { return s.state == 'Z' || s.state == 'X' }

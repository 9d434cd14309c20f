package monitor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"junction/coresched/live"
	"junction/direct"
	"junction/internal/config"
	"junction/internal/monitor/wire"
	"junction/ipc/control"
	"junction/portmap"
)

// state is what a monitor leaves behind for its successor, in a folder beside
// its socket that only its user may enter. What it does not hold: ports, which
// the network server's view of the table tells, and rings, which instances keep.
type state struct {
	Schema    int            `json:"schema"`
	Boot      string         `json:"boot"` // of the machine, in which alone the processes are who they were
	Shared    []netip.Prefix `json:"shared"`
	Last      uint32         `json:"last"`
	Server    process        `json:"server"`
	Spare     process        `json:"spare"` // it may have become the server
	Instances []record       `json:"instances"`
	// Auto is what an operator has set; else the successor's options hold.
	Auto *wire.AutoSettings `json:"auto,omitempty"`
	// Channels are the NIC's queues before the first of the monitors took it.
	Channels *direct.Channels `json:"nic_channels,omitempty"`
}

// record is an instance.
type record struct {
	ID       uint32          `json:"id"`
	Name     string          `json:"name"`
	Peer     control.Peer    `json:"peer"`
	Shared   bool            `json:"shared"`
	Prefixes []netip.Prefix  `json:"prefixes"`
	Mask     uint64          `json:"mask"`
	Rate     uint64          `json:"rate_bytes_per_second"`
	Weight   uint32          `json:"weight"`
	Since    time.Time       `json:"since"`
	Priority config.Priority `json:"priority,omitempty"`
	Pinned   bool            `json:"pinned,omitempty"`
}

// process is one, told from a later one with the same number by its start.
type process struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // clock ticks since boot, proc(5)
}

const stateSchema = 2

// errOtherBoot is for what a monitor left before the machine was started anew: its
// server and instances are no more, whoever has their numbers now.
var errOtherBoot = errors.New("of before this machine was started")

func (o *Options) stateDir() string { return o.Socket + ".state" }

// escrowPath is where an instance's listener is.
func (o *Options) escrowPath(id portmap.Instance) string {
	return filepath.Join(o.stateDir(), "i"+strconv.Itoa(int(id)))
}

// loadState reads what a predecessor left; fs.ErrNotExist if there was none, or
// it ended as it should; errOtherBoot if it is of no use any more.
func (o *Options) loadState() (s state, err error) {
	if err := o.checkFolder(); err != nil {
		return s, err
	}
	b, err := os.ReadFile(filepath.Join(o.stateDir(), "state.json"))
	if err != nil {
		return s, err
	}
	err = json.Unmarshal(b, &s)
	if err == nil && s.Schema != stateSchema {
		err = fmt.Errorf("schema %d", s.Schema)
	}
	if err != nil {
		return s, fmt.Errorf("%s: not of this version (%w); remove it to begin anew", o.stateDir(), err)
	}
	if s.Boot != live.BootID() {
		return s, fmt.Errorf("%s: %w", o.stateDir(), errOtherBoot)
	}
	if len(s.Shared) != len(o.Shared) {
		return s, fmt.Errorf("%s: the monitor before had the shared addresses %v; start with these, or remove the folder to begin anew", o.stateDir(), s.Shared)
	}
	for i := range s.Shared {
		if s.Shared[i] != o.Shared[i] {
			return s, fmt.Errorf("%s: the monitor before had the shared addresses %v; start with these, or remove the folder to begin anew", o.stateDir(), s.Shared)
		}
	}
	return s, nil
}

// save writes the state. A failure to is logged: without it only a successor
// of a monitor that dies has to begin anew.
//
// +checklocks:m.mu
func (m *Monitor) save() {
	if !m.opened {
		return // what the predecessor left still holds
	}
	s := state{Schema: stateSchema, Boot: live.BootID(), Shared: m.opts.Shared, Last: uint32(m.last), Auto: m.auto.orders()}
	s.Channels = m.uplink.before.Load()
	s.Server, s.Spare = m.server.processes()
	for _, i := range m.instances {
		s.Instances = append(s.Instances, record{uint32(i.id), i.name, i.peer, i.shared, i.prefixes, i.mask, i.rate, i.weight, i.since, i.priority, i.sw.pinned.Load()})
	}
	for _, r := range m.awaiting {
		s.Instances = append(s.Instances, r)
	}
	b, err := json.Marshal(s)
	path := filepath.Join(m.opts.stateDir(), "state.json")
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		m.opts.Logger.Warn("state not saved", "error", err)
	}
}

// predecessor reads what a monitor before left; it is empty if there is none to take
// over from. What is of before the machine was started is removed.
func (o *Options) predecessor() (state, error) {
	s, err := o.loadState()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return state{}, nil
	case errors.Is(err, errOtherBoot):
		o.Logger.Info("the monitor before is not taken over from", "reason", err)
		return state{}, os.RemoveAll(o.stateDir())
	}
	return s, err
}

// openState makes the folder.
func (o *Options) openState() error {
	err := os.Mkdir(o.stateDir(), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return o.checkFolder()
	}
	return err
}

// checkFolder refuses a folder that somebody else may have written to: what is in
// it says which programs to start, and which processes to signal and to schedule.
// It returns fs.ErrNotExist if there is none.
func (o *Options) checkFolder() error {
	var st unix.Stat_t
	switch err := unix.Lstat(o.stateDir(), &st); {
	case err != nil:
		return &fs.PathError{Op: "lstat", Path: o.stateDir(), Err: err}
	case st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0:
		return fmt.Errorf("%s: others than user %d may have written there (owner %d, mode %#o); remove it, and have the socket in a folder where only that user may",
			o.stateDir(), os.Geteuid(), st.Uid, st.Mode)
	}
	return nil
}

// startOf tells when a process was started, or "" if there is none.
func startOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// Fields from the third on follow the name, which is in brackets.
	const start = 22
	if i := strings.LastIndexByte(string(b), ')'); i >= 0 {
		if fields := strings.Fields(string(b[i+1:])); len(fields) > start-3 {
			return fields[start-3]
		}
	}
	return ""
}

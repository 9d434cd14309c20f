package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"junction/cmd/junction_run/internal/cli"
	"junction/direct"
)

// hostReport is what --check prints. Its JSON form is stable; schema counts
// incompatible changes.
type hostReport struct {
	Schema       int      `json:"schema"`
	Kernel       string   `json:"kernel"`
	Architecture string   `json:"architecture"`
	Processors   int      `json:"processors"`
	Engines      []string `json:"engines"`
	// Capabilities says which of those that direct mode needs this process has.
	Capabilities map[string]bool `json:"capabilities"`
	// NICs are those that --nic may name here.
	NICs []string `json:"nics"`
	// NIC is how the NIC that --nic names was just opened, NICError why it was not.
	NIC      *direct.Mode `json:"nic,omitempty"`
	NICError string       `json:"nic_error,omitempty"`
}

// check prints what this host offers. A NIC that s names is opened, for a
// moment, because nothing else tells surely what would be in use. The error
// is that of the NIC, after all has been printed.
func check(w io.Writer, s *cli.Settings, asJSON bool) error {
	r := hostReport{
		Schema:       1,
		Architecture: runtime.GOARCH,
		Processors:   runtime.NumCPU(),
		Engines:      []string{"systrap", "inproc"},
		NICs:         candidateNICs(),
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("reading the kernel's version: %w", err)
	}
	r.Kernel = unix.ByteSliceToString(uts.Release[:])
	var err error
	if r.Capabilities, err = capabilities(); err != nil {
		return err
	}
	if s.NIC != "" {
		r.NIC, err = tryNIC(s)
		if err != nil {
			r.NICError = cli.OneLine(err)
		}
	}
	return errors.Join(err, r.write(w, asJSON))
}

func (r hostReport) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	return writeTable(w, r)
}

// tryNIC opens the NIC of s and gives it back as it was: an instance sets a
// NIC up that is down, a question must not.
func tryNIC(s *cli.Settings) (mode *direct.Mode, err error) {
	if l, err := netlink.LinkByName(s.NIC); err == nil && l.Attrs().Flags&net.FlagUp == 0 {
		// Also after a failed attempt. One that may not open it may not set it
		// down either, and has not set it up.
		defer func() { _ = netlink.LinkSetDown(l) }()
	}
	ctx := context.Background()
	d, err := direct.Open(ctx, deviceOptions(s))
	if err != nil {
		return nil, deviceError(ctx, s.NIC, err)
	}
	m := d.Mode()
	return &m, d.Close()
}

// needed are the capabilities of direct mode, by their names in
// capabilities(7): AF_XDP needs the first three, TAP the first.
var needed = map[string]int{
	"CAP_NET_ADMIN": unix.CAP_NET_ADMIN,
	"CAP_NET_RAW":   unix.CAP_NET_RAW,
	"CAP_BPF":       unix.CAP_BPF,
}

// capabilities tells which of the needed ones are in force.
func capabilities() (map[string]bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // the kernel fills both halves of 32
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil, fmt.Errorf("reading this process's capabilities: %w", err)
	}
	have := make(map[string]bool)
	for name, bit := range needed {
		have[name] = data[bit/32].Effective&(1<<(bit%32)) != 0
	}
	return have, nil
}

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"junction/cmd/junction_run/internal/cli"
	"junction/direct"
	"junction/ipc"
	"junction/libos"
	modeswitch "junction/switch"
)

// report is what --stats prints when the program has ended. Its JSON form is
// stable; schema counts incompatible changes.
type report struct {
	Schema         int      `json:"schema"`
	Name           string   `json:"name"`
	Mode           cli.Mode `json:"mode"`
	ExitCode       int      `json:"exit_code"`
	ElapsedSeconds float64  `json:"elapsed_seconds"`
	libos.Stats
	Device *deviceReport `json:"device,omitempty"` // of --nic
	Rings  *ipc.Stats    `json:"rings,omitempty"`  // with junctiond
	// Queue counts what passed queues of its own, after it was switched to direct mode.
	Queue *direct.QueueStats `json:"queue,omitempty"`
	Link  *modeswitch.Stats  `json:"link,omitempty"` // in both
}

// deviceReport is a NIC: what was really in use, and what passed.
type deviceReport struct {
	direct.Mode
	direct.QueueStats
}

// addNetwork adds what the network did.
func (r *report) addNetwork(n *network) {
	if n.link != nil {
		link := n.link.Stats()
		r.Link = &link
	}
	if n.device != nil {
		r.Device = &deviceReport{n.device.Mode(), n.device.Stats()}
	}
	if n.lease != nil {
		rings := n.lease.Rings()[0].Stats()
		r.Rings = &rings
	}
	if n.mover != nil {
		if q := n.mover.QueueStats(); q.Drops != nil {
			r.Queue = &q
		}
	}
}

// write prints r as text or json.
func (r report) write(w io.Writer, format string) error {
	if format == "json" {
		return json.NewEncoder(w).Encode(r)
	}
	return writeTable(w, r)
}

// writeTable prints the JSON form of v as lines of names and values, nested
// names joined by dots, so that both forms always say the same.
func writeTable(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // counters are printed exactly
	var fields map[string]any
	if err := d.Decode(&fields); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	writeFields(t, "", fields)
	return t.Flush()
}

func writeFields(w io.Writer, prefix string, fields map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if inner, ok := fields[name].(map[string]any); ok {
			writeFields(w, prefix+name+".", inner)
			continue
		}
		fmt.Fprintf(w, "%s%s\t%v\n", prefix, name, fields[name])
	}
}

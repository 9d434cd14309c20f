package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"junction/internal/monitor"
	"junction/internal/monitor/wire"
	"junction/internal/usage"
	"junction/netserver"
)

// traced is what trace prints of a frame: the network server's word, with names.
type traced struct {
	Schema int `json:"schema"`
	netserver.Traced
	FromName string   `json:"from_name"`
	ToNames  []string `json:"to_names"`
}

func (c *ctl) trace(ctx context.Context, args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 || n > netserver.MaxTrace {
		return usage.Errorf("trace %q: want a number of frames from 1 to %d", args[0], netserver.MaxTrace)
	}
	var s monitor.Status
	if err := c.ask(ctx, "status", &s); err != nil {
		return err
	}
	names := map[uint32]string{0: "wire"}
	for _, i := range s.Instances {
		names[i.ID] = i.Name
	}
	seen := 0
	err = c.follow(ctx, "trace", wire.Trace{Frames: n}, func(r io.Reader) error {
		for in := json.NewDecoder(r); ; seen++ {
			var f netserver.Traced
			if err := in.Decode(&f); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := c.printTraced(withNames(f, names)); err != nil {
				return err
			}
		}
	})
	if err == nil && seen < n && ctx.Err() == nil {
		return fmt.Errorf("trace ended after %d of %d frames: another trace began, or the network server ended", seen, n)
	}
	return err
}

func withNames(f netserver.Traced, names map[uint32]string) traced {
	name := func(id uint32) string {
		if n, ok := names[id]; ok {
			return n
		}
		return fmt.Sprintf("instance %d", id) // it joined meanwhile
	}
	t := traced{Schema: 1, Traced: f, FromName: name(f.From), ToNames: []string{}}
	for _, h := range f.Hops {
		t.ToNames = append(t.ToNames, name(h.To))
	}
	return t
}

func (c *ctl) printTraced(t traced) error {
	if c.json {
		return json.NewEncoder(c.out).Encode(t)
	}
	_, err := fmt.Fprintln(c.out, t.line())
	return err
}

// line is a traced frame for people.
func (t *traced) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s ", t.Time.Local().Format("15:04:05.000000"), t.FromName, t.Protocol)
	if t.Source.IsValid() {
		fmt.Fprintf(&b, "%v > %v", t.Source, t.Destination)
	} else {
		fmt.Fprintf(&b, "%s > %s", t.SourceMAC, t.DestinationMAC)
	}
	if t.Fragment {
		b.WriteString(", fragment")
	}
	fmt.Fprintf(&b, ", %d bytes", t.Bytes)
	if t.SegmentBytes > 0 {
		fmt.Fprintf(&b, " in segments of %d", t.SegmentBytes)
	}
	fmt.Fprintf(&b, ": %s", t.Decision)
	if t.Drop != "" {
		fmt.Fprintf(&b, " (%s)", t.Drop)
	}
	for n, h := range t.Hops {
		fmt.Fprintf(&b, " -> %s", t.ToNames[n])
		if h.Drop != "" {
			fmt.Fprintf(&b, " (dropped: %s)", h.Drop)
		}
	}
	return b.String()
}

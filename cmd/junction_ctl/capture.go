package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/spf13/cobra"

	"junction/internal/monitor"
	"junction/internal/monitor/wire"
	"junction/netserver"
)

func (c *ctl) captureCommand() *cobra.Command {
	var file string
	cmd := command("capture NAME|uplink [-w FILE]", "Write the frames of an instance or of the uplink as pcapng, until interrupted; then say on standard error how many, and how many were lost", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error { return c.capture(ctx, args[0], file) })
	cmd.Flags().StringVarP(&file, "write", "w", "-", "file; -: standard output, as for wireshark -k -i -")
	return cmd
}

func (c *ctl) capture(ctx context.Context, name, file string) (err error) {
	id := uint32(0)
	if name != "uplink" {
		var s monitor.Status
		if err := c.ask(ctx, "status", &s); err != nil {
			return err
		}
		i, err := find(s.Instances, name)
		if err != nil {
			return err
		}
		id = i.ID
	}
	out := c.out
	if file != "-" {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	count := captured{Schema: 1}
	err = c.follow(ctx, "capture", wire.Capture{ID: id}, func(r io.Reader) error { return transcribe(r, out, name, &count) })
	c.report(count)
	return err
}

// captured counts a capture's frames.
type captured struct {
	Schema int    `json:"schema"`
	Frames uint64 `json:"frames"`
	// Lost frames passed while those before were waiting to be written.
	Lost uint64 `json:"lost_frames"`
}

// report says on standard error, for standard output may be the capture, how
// complete it is.
func (c *ctl) report(count captured) {
	if c.json {
		_ = json.NewEncoder(c.err).Encode(count) // a failure could be told to nobody
		return
	}
	fmt.Fprintf(c.err, "%d frames, %d lost\n", count.Frames, count.Lost)
}

// follow gives an order beside which goes a pipe, and reads from that until its
// end or until interrupted.
func (c *ctl) follow(ctx context.Context, verb string, args any, read func(io.Reader) error) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = c.order(ctx, verb, args, new(struct{}), int(w.Fd()))
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err = read(r); errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // interrupted
	}
	return err
}

// maxRecord is longer than any frame.
const maxRecord = 1 << 18

// transcribe turns a capture's records into pcapng, each written at once.
func transcribe(r io.Reader, w io.Writer, name string, count *captured) error {
	intf := pcapgo.DefaultNgInterface
	intf.Name, intf.LinkType = name, layers.LinkTypeEthernet
	options := pcapgo.DefaultNgWriterOptions
	options.SectionInfo.Application = "junction_ctl"
	out, err := pcapgo.NewNgWriterInterface(w, intf, options)
	if err != nil {
		return err
	}
	in, header := bufio.NewReader(r), make([]byte, netserver.TapHeader)
	for {
		if err := out.Flush(); err != nil {
			return err
		}
		if _, err := io.ReadFull(in, header); err == io.EOF {
			return nil // the instance has left
		} else if err != nil {
			return err
		}
		n := binary.LittleEndian.Uint32(header[8:])
		if n > maxRecord {
			return fmt.Errorf("capture: a record of %d bytes; use programs of one release", n)
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(in, frame); err != nil {
			return err
		}
		count.Frames++
		count.Lost = binary.LittleEndian.Uint64(header[16:])
		at := time.Unix(0, int64(binary.LittleEndian.Uint64(header)))
		if err := out.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: int(n), Length: int(n)}, frame); err != nil {
			return err
		}
	}
}

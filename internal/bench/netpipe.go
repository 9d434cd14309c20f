package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"junction/internal/bench/clients"
)

const netpipePort = 5002

// netpipeSizes are the lengths of NetPIPE's messages in bytes.
var netpipeSizes = []int{64, 512, 4 << 10, 32 << 10, 128 << 10, 512 << 10}

// runNetpipe measures messages that go there and back again.
func runNetpipe(ctx context.Context, r *runner) error {
	path, err := programPath("NPtcp")
	if err != nil {
		return err
	}
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		for _, size := range netpipeSizes {
			if r.o.Quick && size == netpipeSizes[len(netpipeSizes)-2] {
				continue
			}
			if err := r.netpipe(ctx, sys, path, size); err != nil {
				return fmt.Errorf("messages of %d bytes: %w", size, err)
			}
		}
		return nil
	})
}

// netpipeArgs are the arguments of both sides for messages of one size, which
// are sent several times as often as repeats says. Its server serves once.
func netpipeArgs(path string, size, repeats int, file string, more ...string) []string {
	n := strconv.Itoa(size)
	argv := append([]string{path}, more...)
	return append(argv, "-P", strconv.Itoa(netpipePort), "-p", "0", "-l", n, "-u", n, "-n", strconv.Itoa(repeats), "-o", file)
}

// repeats is how often a message is sent for one of NetPIPE's trials.
func (r *runner) repeats(size int) int {
	total, most := 8<<20, 2000 // bytes, messages
	if r.o.Quick {
		total, most = 1<<20, 50
	}
	return max(4, min(most, total/size))
}

func (r *runner) netpipe(ctx context.Context, sys System, path string, size int) (err error) {
	repeats := r.repeats(size)
	p := Program{Argv: netpipeArgs(path, size, repeats, "/dev/null"), Report: true}
	s, err := newServer(ctx, r.lab, sys, p, r.server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.start(); err != nil {
		return err
	}
	file := filepath.Join(r.dir, "netpipe")
	argv := netpipeArgs(path, size, repeats, file, "-h", s.address().String())
	if err := r.ask(ctx, s, argv); err != nil {
		return s.explain(err)
	}
	out, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	bps, seconds, err := clients.ParseNetpipe(string(out), size)
	if err != nil {
		return err
	}
	if err := s.wait(ctx); err != nil {
		return err
	}
	const giga, micro = 1e9, 1e-6
	r.c.add(sys.Name(), fmt.Sprintf("%dB_gbit_per_s", size), Higher, bps/giga)
	r.c.add(sys.Name(), fmt.Sprintf("%dB_one_way_us", size), Lower, seconds/micro)
	r.c.Modes[sys.Name()], err = s.mode()
	return err
}

// ask runs NetPIPE's client, again until its server listens: an attempt to
// connect would be the one that it waits for.
func (r *runner) ask(ctx context.Context, s *server, argv []string) error {
	deadline := time.Now().Add(readyTimeout)
	for {
		out, err := r.lab.Client.Command(ctx, argv[0], argv[1:]...).CombinedOutput()
		if err == nil {
			return nil
		}
		if !bytes.Contains(out, []byte("Cannot Connect")) || time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("NPtcp: %w: %.300q", err, out)
		}
		select {
		case <-s.done:
			return errors.Join(errors.New("ended before it served"), s.err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

package bench

import (
	"bytes"
	"context"
	"errors"
	"strconv"

	"junction/internal/bench/clients"
)

const iperfPort = 5201

// runBulk measures the throughput of one TCP connection, in both directions.
func runBulk(ctx context.Context, r *runner) error {
	path, err := programPath("iperf3")
	if err != nil {
		return err
	}
	p := Program{Argv: []string{path, "--server", "--forceflush", "--port", strconv.Itoa(iperfPort)}, Report: true}
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		err := r.serve(ctx, sys, p, probeIperf, func(s *server) error { return r.bulk(ctx, s, "to_server") })
		if err != nil {
			return err
		}
		return r.serve(ctx, sys, p, probeIperf, func(s *server) error { return r.bulk(ctx, s, "from_server", "--reverse") })
	})
}

var errNotListening = errors.New("has not said that it listens")

// probeIperf reads what the server says. Connecting to it would be a test to
// it, and after each it closes its port for a moment: hence also one server for
// each direction.
func probeIperf(_ context.Context, s *server) error {
	if !bytes.Contains(s.printed(), []byte("Server listening")) {
		return errNotListening
	}
	return nil
}

func (r *runner) bulk(ctx context.Context, s *server, direction string, args ...string) error {
	seconds := 3
	if r.o.Quick {
		seconds = 1
	}
	argv := append([]string{
		"iperf3", "--client", address().String(), "--port", strconv.Itoa(iperfPort), "--json", "--time", strconv.Itoa(seconds),
	}, args...)
	before, err := s.cpu()
	if err != nil {
		return err
	}
	out, err := r.clientOutput(ctx, argv...)
	if err != nil {
		return err
	}
	after, err := s.cpu()
	if err != nil {
		return err
	}
	bps, err := clients.ParseIperf(out)
	if err != nil {
		return err
	}
	gigabytes := bps * float64(seconds) / 8e9
	r.c.add(s.system.Name(), direction+"_gbit_per_s", Higher, bps/1e9)
	r.c.add(s.system.Name(), direction+"_server_cpu_s_per_gbyte", Lower, (after-before).Seconds()/gigabytes)
	return nil
}

package bench

import (
	"context"
	"strconv"
	"time"

	"junction/internal/bench/clients"
)

// runBetween measures clients that are under the same system as their server.
func runBetween(ctx context.Context, r *runner) error {
	redis, err := redisProgram()
	if err != nil {
		return err
	}
	path, err := programPath("iperf3")
	if err != nil {
		return err
	}
	iperf := Program{Argv: []string{path, "--server", "--forceflush", "--port", strconv.Itoa(iperfPort)}, Report: true}
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		err := r.serve(ctx, sys, redis, r.probeServer(redisPort), func(s *server) error {
			for _, l := range redisLoads {
				if err := r.redisBetween(ctx, s, l); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		return r.serve(ctx, sys, iperf, probeIperf, func(s *server) error { return r.bulkBetween(ctx, s) })
	})
}

// probeServer is probeTCP for a server that may be on the loopback device.
func (r *runner) probeServer(port int) probe {
	return func(ctx context.Context, s *server) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		c, err := r.dialer(s, port)(ctx)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

func (r *runner) redisBetween(ctx context.Context, s *server, l redisLoad) error {
	program, err := programPath("redis-benchmark")
	if err != nil {
		return err
	}
	requests := 20000 * l.depth
	if l.connections == 1 {
		requests = 10000
	}
	if r.o.Quick {
		requests /= 10
	}
	out, err := r.peerOutput(ctx, s, program, "-h", s.address().String(), "-p", strconv.Itoa(redisPort), "--csv", "-t", "get",
		"-c", strconv.Itoa(l.connections), "-P", strconv.Itoa(l.depth), "-n", strconv.Itoa(requests))
	if err != nil {
		return err
	}
	result, err := redisResult(out, "GET")
	if err != nil {
		return err
	}
	r.c.add(s.system.Name(), "get_"+l.name+"_requests_per_s", Higher, result.PerSecond)
	if l.depth == 1 {
		r.c.add(s.system.Name(), "get_"+l.name+"_p99_us", Lower, result.P99)
	}
	return nil
}

func (r *runner) bulkBetween(ctx context.Context, s *server) error {
	program, err := programPath("iperf3")
	if err != nil {
		return err
	}
	seconds := "3"
	if r.o.Quick {
		seconds = "1"
	}
	out, err := r.peerOutput(ctx, s, program, "--client", s.address().String(), "--port", strconv.Itoa(iperfPort), "--json", "--time", seconds)
	if err != nil {
		return err
	}
	bps, err := clients.ParseIperf(out)
	if err != nil {
		return err
	}
	const giga = 1e9
	r.c.add(s.system.Name(), "bulk_gbit_per_s", Higher, bps/giga)
	return nil
}

package bench

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"junction/internal/bench/clients"
)

const redisPort = 6379

// redisLoad is one way to load a redis server.
type redisLoad struct {
	name               string
	connections, depth int
}

var redisLoads = []redisLoad{{"c1", 1, 1}, {"c50", 50, 1}, {"c50_x16", 50, 16}}

// redisProgram keeps nothing on disk, for disks are not what is measured.
func redisProgram() (Program, error) {
	path, err := programPath("redis-server")
	return Program{Report: true, Argv: []string{
		path, "--port", strconv.Itoa(redisPort), "--protected-mode", "no", "--save", "", "--dir", "/tmp",
	}}, err
}

// runRedis measures redis under the loads, tests SET and GET, one server for all
// of them in each round.
func runRedis(ctx context.Context, r *runner) error {
	p, err := redisProgram()
	if err != nil {
		return err
	}
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		return r.serve(ctx, sys, p, probeTCP(r.lab, redisPort), func(s *server) error {
			for _, l := range redisLoads {
				for _, test := range []string{"SET", "GET"} {
					if err := r.loadRedis(ctx, s, l, test); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
}

// loadRedis runs one test long enough, and records it.
func (r *runner) loadRedis(ctx context.Context, s *server, l redisLoad, test string) error {
	want := time.Second
	if r.o.Quick {
		want = 200 * time.Millisecond
	}
	warm, err := r.redisBenchmark(ctx, l, test, 1000*l.depth)
	if err != nil {
		return err
	}
	requests := max(1000*l.depth, int(warm.PerSecond*want.Seconds()))
	before, err := s.cpu()
	if err != nil {
		return err
	}
	result, err := r.redisBenchmark(ctx, l, test, requests)
	if err != nil {
		return err
	}
	after, err := s.cpu()
	if err != nil {
		return err
	}
	prefix := fmt.Sprintf("%s_%s_", strings.ToLower(test), l.name)
	name := s.system.Name()
	r.c.add(name, prefix+"requests_per_s", Higher, result.PerSecond)
	if l.depth == 1 {
		r.c.add(name, prefix+"p99_us", Lower, result.P99)
	}
	r.c.add(name, prefix+"server_cpu_us_per_request", Lower, microsecondsEach(after-before, requests))
	return nil
}

func (r *runner) redisBenchmark(ctx context.Context, l redisLoad, test string, requests int) (clients.Result, error) {
	out, err := r.clientOutput(ctx, "redis-benchmark", "-h", address().String(), "-p", strconv.Itoa(redisPort), "--csv",
		"-t", strings.ToLower(test), "-c", strconv.Itoa(l.connections), "-P", strconv.Itoa(l.depth), "-n", strconv.Itoa(requests))
	if err != nil {
		return clients.Result{}, err
	}
	return redisResult(out, test)
}

// redisResult finds a test's result in what redis-benchmark printed.
func redisResult(out []byte, test string) (clients.Result, error) {
	results, err := clients.ParseRedisBenchmark(string(out))
	if err != nil {
		return clients.Result{}, err
	}
	result, ok := results[test]
	if !ok || result.PerSecond == 0 {
		return clients.Result{}, fmt.Errorf("redis-benchmark: %w: no %s", clients.ErrOutput, test)
	}
	return result, nil
}

func microsecondsEach(d time.Duration, n int) float64 { return float64(d) / 1e3 / float64(n) }

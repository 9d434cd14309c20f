package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// serverBenchmarks lists the cases of Server.
func serverBenchmarks(o Options) []benchmark {
	direct := func(driver string, spin time.Duration) System { return Junction{o.JunctionRun, driver, spin, ""} }
	server := func(driver string, spin time.Duration) System { return ServerMode{o.JunctionRun, driver, spin} }
	all := []System{Native{}, direct("afxdp", 0), direct("tap", 0), server("afxdp", 0), server("afxdp", Spin), server("tap", 0)}
	between := []System{Native{}, Loopback{}, server("afxdp", 0), server("afxdp", Spin), server("tap", 0)}
	byDirect, byLoopback := []string{"native", "junction-afxdp"}, []string{"native", "loopback"}
	return []benchmark{
		{"ring", "frames between two threads, each with a copy in and a copy out; one_way is half a round trip", media(), wanting(runRing, ringTargets), []string{"seqpacket", "veth-udp"}},
		{"server-redis", "redis-server, redis-benchmark with 1 and 50 connections, and 50 pipelining 16 requests", all, wanting(runRedis, redisTargets), byDirect},
		{"server-memcached", "memcached, one thread, values of 1 KiB, one request at a time on each connection", all, runMemcached, byDirect},
		{"server-nginx", "nginx, one process, wrk; files of 4 to 128 KiB, 1 to 60 connections", all, runNginx, byDirect},
		{"server-netpipe", "NetPIPE over TCP, 64 B to 512 KiB, there and back again", all, runNetpipe, byDirect},
		{"between", "redis-benchmark and iperf3 beside their server: two instances through the network server, two native programs on a veth or on loopback", between, wanting(runBetween, betweenTargets), byLoopback},
	}
}

// Targets by metric.
var (
	ringTargets = map[string]Target{
		"64B_mpps":       {System: "ring-spin", AtLeast: 10},
		"one_way_p50_ns": {System: "ring-spin", AtMost: 500},
	}
	// Server mode beside direct mode.
	redisTargets = redisWant([]string{"set", "get"}, Target{System: "server-afxdp", To: "junction-afxdp", AtLeast: 0.7})
	// Two instances beside two native programs across a veth.
	betweenTargets = func() map[string]Target {
		t := Target{System: "server-afxdp", To: "native", AtLeast: 1}
		all := redisWant([]string{"get"}, t)
		all["bulk_gbit_per_s"] = t
		return all
	}()
)

// redisWant wants the same of the throughput of redis under every load.
func redisWant(tests []string, t Target) map[string]Target {
	all := map[string]Target{}
	for _, test := range tests {
		for _, l := range redisLoads {
			all[test+"_"+l.name+"_requests_per_s"] = t
		}
	}
	return all
}

// wanting runs a case, and notes what is wanted of it.
func wanting(run func(context.Context, *runner) error, targets map[string]Target) func(context.Context, *runner) error {
	return func(ctx context.Context, r *runner) error {
		err := run(ctx, r)
		for _, metric := range slices.Sorted(maps.Keys(targets)) {
			r.c.target(metric, targets[metric])
		}
		return err
	}
}

const memcachedPort = 11211

// memcachedConnections and memcachedBytes are the load on memcached.
var memcachedConnections = []int{1, 50}

const memcachedBytes = 1024

func runMemcached(ctx context.Context, r *runner) error {
	path, err := programPath("memcached")
	if err != nil {
		return err
	}
	p := Program{Report: true, Argv: []string{path, "-u", "root", "-t", "1", "-U", "0", "-p", strconv.Itoa(memcachedPort)}}
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		return r.serve(ctx, sys, p, probeTCP(r.lab, memcachedPort), func(s *server) error {
			for _, connections := range memcachedConnections {
				for _, op := range []string{"set", "get"} {
					if err := r.loadMemcached(ctx, s, connections, op); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
}

var errAnswers = errors.New("requests were answered wrongly")

func (r *runner) loadMemcached(ctx context.Context, s *server, connections int, op string) error {
	exchange := map[string]exchange{"set": setItem(memcachedBytes), "get": getItem(memcachedBytes)}[op]
	return r.loaded(ctx, s, memcachedPort, connections, exchange, func(on *busy) error {
		length := time.Second
		if r.o.Quick {
			length = 200 * time.Millisecond
		}
		before, err := s.cpu()
		if err != nil {
			return err
		}
		if _, err := faultless(on.load.Mark()); err != nil {
			return err
		}
		const least = 100
		if err := errors.Join(on.load.For(ctx, length), on.load.Wait(ctx, least)); err != nil {
			return err
		}
		p, err := faultless(on.load.Mark())
		if err != nil {
			return err
		}
		after, err := s.cpu()
		if err != nil {
			return err
		}
		name, prefix, result := s.system.Name(), fmt.Sprintf("%s_c%d_", op, connections), p.Result()
		r.c.add(name, prefix+"requests_per_s", Higher, result.PerSecond)
		r.c.add(name, prefix+"p99_us", Lower, result.P99)
		r.c.add(name, prefix+"server_cpu_us_per_request", Lower, microsecondsEach(after-before, int(result.Requests)))
		return nil
	})
}

// The load on nginx: files in KiB, and connections.
var (
	nginxFiles       = []int{4, 16, 64, 128}
	nginxConnections = []int{1, 10, 60}
)

func runNginx(ctx context.Context, r *runner) error {
	p, err := r.nginx()
	if err != nil {
		return err
	}
	for _, size := range nginxFiles {
		const kibi = 1024
		if err := os.WriteFile(filepath.Join(r.dir, fileName(size)), make([]byte, size*kibi), 0o644); err != nil {
			return err
		}
	}
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		return r.serve(ctx, sys, p, probeTCP(r.lab, nginxPort), func(s *server) error {
			for _, size := range nginxFiles {
				for _, connections := range nginxConnections {
					if err := r.loadNginx(ctx, s, size, connections); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
}

func fileName(kib int) string { return fmt.Sprintf("%dk", kib) }

// loadNginx measures for a second: wrk knows no less.
func (r *runner) loadNginx(ctx context.Context, s *server, kib, connections int) error {
	seconds := 2
	if r.o.Quick {
		seconds = 1
		if kib != nginxFiles[0] && kib != nginxFiles[len(nginxFiles)-1] || connections == 10 {
			return nil // the corners will do
		}
	}
	result, err := r.wrk(ctx, connections, seconds, "/"+fileName(kib))
	if err == nil && (result.Errors > 0 || result.PerSecond == 0) {
		err = fmt.Errorf("%w: %d of %d", errAnswers, result.Errors, result.Requests)
	}
	if err != nil {
		return err
	}
	prefix := fmt.Sprintf("%dkib_c%d_", kib, connections)
	r.c.add(s.system.Name(), prefix+"requests_per_s", Higher, result.PerSecond)
	r.c.add(s.system.Name(), prefix+"p99_us", Lower, result.P99)
	return nil
}

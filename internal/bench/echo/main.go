// Command echo measures the link endpoint and the TCP/IP stack alone, without
// the libOS: a RESP and UDP echo server on netstack over the queues of a veth,
// or on the kernel's sockets on the same veth, against clients of the kernel's
// in another network namespace. The variants take turns in one run; the table
// shows medians.
//
//	go run ./internal/bench/echo -rounds 5 native afxdp afxdp,spin=50us tap
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

func main() {
	if v := os.Getenv(serverEnv); v != "" {
		exit(serve(v))
	}
	rounds := flag.Int("rounds", 3, "how often each variant has its turn")
	requests := flag.Int("requests", 100000, "requests of a turn with 50 connections")
	pin := flag.Bool("pin", false, "give clients and servers a CPU each")
	flag.Parse()
	variants := flag.Args()
	if len(variants) == 0 {
		variants = []string{"native", "afxdp", "afxdp,spin=50us", "tap"}
	}
	exit(run(context.Background(), variants, *rounds, *requests, *pin))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, variants []string, rounds, requests int, pin bool) error {
	results := make(map[string][]result)
	for range rounds {
		for _, v := range variants {
			r, err := turn(ctx, v, requests, pin)
			if err != nil {
				return fmt.Errorf("%s: %w", v, err)
			}
			results[v] = append(results[v], r)
		}
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "variant\t50 conn/s\t1 conn/s\tx16/s\tµs CPU per request at 50\tUDP RTT µs\tGbit/s in\tGbit/s out\t")
	for _, v := range variants {
		m := medians(results[v])
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.0f\t%.2f\t%.1f\t%.1f\t%.1f\t\n", v, m.many, m.one, m.pipelined, m.cpu, m.rtt, m.in, m.out)
	}
	return t.Flush()
}

// result of one turn: requests a second, microseconds, Gbit/s.
type result struct{ many, one, pipelined, cpu, rtt, in, out float64 }

func medians(rs []result) result {
	pick := func(get func(result) float64) float64 {
		var xs []float64
		for _, r := range rs {
			xs = append(xs, get(r))
		}
		slices.Sort(xs)
		return xs[len(xs)/2]
	}
	return result{
		many:      pick(func(r result) float64 { return r.many }),
		one:       pick(func(r result) float64 { return r.one }),
		pipelined: pick(func(r result) float64 { return r.pipelined }),
		cpu:       pick(func(r result) float64 { return r.cpu }),
		rtt:       pick(func(r result) float64 { return r.rtt }),
		in:        pick(func(r result) float64 { return r.in }),
		out:       pick(func(r result) float64 { return r.out }),
	}
}

// limit bounds a turn.
const limit = 2 * time.Minute

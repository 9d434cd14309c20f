package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"junction/internal/bench/load"
	"junction/switch/protocol"
)

// Cases of the switch's experiment, and the names of what they compare.
const (
	caseBlocks = "switch-blocks"
	caseShares = "switch-shares"

	hybrid     = "hybrid"
	throughput = "requests_per_s"
	fitted     = "fitted_gain"
	overShares = "all shares"
)

// switchBenchmarks lists the cases of Switch.
func switchBenchmarks(o Options) []benchmark {
	switched := ServerMode{o.JunctionRun, switchDriver, 0}
	targets := func(more map[string]Target) map[string]Target {
		more["blackout_p99_us"] = Target{System: switched.Name(), AtMost: 1000}
		return more
	}
	return []benchmark{
		{caseBlocks, "nginx, 20 connections, files of 4 to 128 KiB: one instance in server mode, in direct mode, and with half of the requests in each",
			[]System{Native{}, switched}, wanting(runBlocks, targets(map[string]Target{})), []string{"native", "server"}},
		{caseShares, fmt.Sprintf("nginx, 20 connections, files of %d KiB: one instance with a share of the requests in direct mode, the others in server mode", shareFile),
			[]System{switched}, wanting(runShares, targets(map[string]Target{fitted: {System: overShares, AtLeast: 1}})), []string{shareName(0)}},
	}
}

const (
	switchConnections = 20
	shareFile         = 16 // KiB
)

func switchFiles(quick bool) []int {
	if quick {
		return []int{4, 128}
	}
	return []int{4, 8, 16, 32, 64, 128}
}

func shares(quick bool) []int {
	if quick {
		return []int{0, 50, 100}
	}
	return []int{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100}
}

func shareName(percent int) string { return fmt.Sprintf("%d%%", percent) }

// runBlocks measures both modes, and half of the requests in each, by file size.
func runBlocks(ctx context.Context, r *runner) error {
	files := switchFiles(r.o.Quick)
	p, err := r.nginxFiles(files)
	if err != nil {
		return err
	}
	turn := 0 // every other round goes the other way
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		order := []protocol.Mode{protocol.Server, protocol.Direct}
		if sys != (Native{}) {
			if turn++; turn%2 == 0 {
				slices.Reverse(order)
			}
		}
		var m measured
		err := r.serve(ctx, sys, p, probeTCP(r.lab, nginxPort), func(s *server) error {
			for _, kib := range files {
				err := r.loaded(ctx, s, nginxPort, switchConnections, getFile("/"+fileName(kib), content(kib)), func(on *busy) error {
					if sys == (Native{}) {
						return r.blocksNative(ctx, on, kib)
					}
					return r.blocks(ctx, on, kib, order, &m)
				})
				if err != nil {
					return fmt.Errorf("files of %d KiB: %w", kib, err)
				}
			}
			return nil
		})
		m.report(r.c, sys)
		return err
	})
}

// content is what a file of so many KiB holds.
func content(kib int) []byte {
	const kibi = 1024
	b := make([]byte, kib*kibi)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

// nginxFiles has nginx serve files of so many KiB.
func (r *runner) nginxFiles(files []int) (Program, error) {
	p, err := r.nginx()
	if err != nil {
		return p, err
	}
	for _, kib := range files {
		if err := os.WriteFile(filepath.Join(r.dir, fileName(kib)), content(kib), 0o644); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (r *runner) blocksNative(ctx context.Context, on *busy, kib int) error {
	n, err := r.requests(ctx, on)
	if err != nil {
		return err
	}
	p, err := on.during(ctx, n)
	r.addBlocks(kib, Native{}.Name(), &p)
	return err
}

// blocks measures the first mode, half and half, and the second mode.
func (r *runner) blocks(ctx context.Context, on *busy, kib int, order []protocol.Mode, m *measured) error {
	if _, err := on.to(ctx, order[0]); err != nil {
		return err
	}
	n, err := r.requests(ctx, on)
	if err != nil {
		return err
	}
	first, err := on.during(ctx, n)
	if err != nil {
		return err
	}
	half, err := on.divided(ctx, n/2, n/2, order[1], m)
	if err != nil {
		return err
	}
	second, err := on.during(ctx, n)
	if err != nil {
		return err
	}
	r.addBlocks(kib, order[0].String(), &first)
	r.addBlocks(kib, hybrid, &half)
	r.addBlocks(kib, order[1].String(), &second)
	return nil
}

func (r *runner) addBlocks(kib int, series string, p *load.Phase) {
	prefix := fmt.Sprintf("%dkib_", kib)
	result := p.Result()
	r.c.add(series, prefix+throughput, Higher, result.PerSecond)
	r.c.add(series, prefix+"p99_us", Lower, result.P99)
}

// runShares measures shares of the requests in direct mode.
func runShares(ctx context.Context, r *runner) error {
	p, err := r.nginxFiles([]int{shareFile})
	if err != nil {
		return err
	}
	all := shares(r.o.Quick)
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		var m measured
		rates := make(map[int]float64)
		err := r.serve(ctx, sys, p, probeTCP(r.lab, nginxPort), func(s *server) error {
			return r.loaded(ctx, s, nginxPort, switchConnections, getFile("/"+fileName(shareFile), content(shareFile)), func(on *busy) error {
				n, err := r.requests(ctx, on)
				if err != nil {
					return err
				}
				for _, share := range all {
					p, err := on.shared(ctx, n, share, &m)
					if err != nil {
						return fmt.Errorf("%d %% direct: %w", share, err)
					}
					rates[share] = p.PerSecond()
					r.c.add(shareName(share), throughput, Higher, p.PerSecond())
					r.c.add(shareName(share), "p99_us", Lower, p.Result().P99)
				}
				return nil
			})
		})
		if err == nil {
			r.c.add(overShares, fitted, Higher, gainOver(rates))
			slices.Reverse(all) // the next round goes the other way
		}
		m.report(r.c, sys)
		return err
	})
}

// shared makes n requests, a share of them in percent in direct mode. It begins
// in the mode that the instance is in.
func (on *busy) shared(ctx context.Context, n, share int, m *measured) (load.Phase, error) {
	direct := n * share / 100
	parts := map[protocol.Mode]int{protocol.Direct: direct, protocol.Server: n - direct}
	here, there := protocol.Server, protocol.Direct
	if on.daemon.mode == protocol.Direct {
		here, there = there, here
	}
	if parts[there] == 0 {
		return on.during(ctx, n)
	}
	if parts[here] == 0 {
		if _, err := on.to(ctx, there); err != nil {
			return load.Phase{}, err
		}
		return on.during(ctx, n)
	}
	return on.divided(ctx, parts[here], parts[there], there, m)
}

// gainOver fits a line to what was measured by percent, and returns its value at
// 100 by the one at 0.
func gainOver(rates map[int]float64) float64 {
	var n, x, y, xx, xy float64
	for percent, rate := range rates {
		p := float64(percent) / 100
		n, x, y, xx, xy = n+1, x+p, y+rate, xx+p*p, xy+p*rate
	}
	slope := (n*xy - x*y) / (n*xx - x*x)
	base := (y - slope*x) / n
	return (base + slope) / base
}

// requests returns how many requests make a measurement, by the present rate.
func (r *runner) requests(ctx context.Context, on *busy) (int, error) {
	length, least := 2*time.Second, 500
	if r.o.Quick {
		length, least = 200*time.Millisecond, 100
	}
	p, err := on.during(ctx, least)
	return max(least, int(p.PerSecond()*length.Seconds())), err
}

// during returns what the load sees in the next n requests. What has failed since
// the last mark is an error too.
func (on *busy) during(ctx context.Context, n int) (load.Phase, error) {
	if p, err := faultless(on.load.Mark()); err != nil {
		return p, err
	}
	if err := on.load.Wait(ctx, uint64(n)); err != nil {
		return load.Phase{}, err
	}
	return faultless(on.load.Mark())
}

// divided makes some requests, switches, and makes the others. Those that are
// answered during the switch come on top.
func (on *busy) divided(ctx context.Context, before, after int, mode protocol.Mode, m *measured) (load.Phase, error) {
	first, err := on.during(ctx, before)
	if err != nil {
		return first, err
	}
	results, err := on.to(ctx, mode)
	if err != nil {
		return first, err
	}
	meanwhile, err := faultless(on.load.Mark())
	if err != nil {
		return meanwhile, err
	}
	second, err := on.during(ctx, after)
	if err != nil {
		return second, err
	}
	m.add(results, &meanwhile, max(first.Gap, second.Gap))
	return load.Join(first, meanwhile, second), nil
}

// faultless makes an error of requests that failed.
func faultless(p load.Phase) (load.Phase, error) {
	if p.Errors > 0 {
		return p, fmt.Errorf("%w: %d of %d, first: %w", errAnswers, p.Errors, p.Errors+p.Requests, p.First)
	}
	return p, nil
}

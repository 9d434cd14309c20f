package bench

import (
	"context"
	"errors"
	"strconv"

	"junction/internal/bench/clients"
	"junction/internal/lab"
)

const (
	echoPort = 7777
	echoSize = 64 // bytes of payload
)

// NativeSpin is Native for the echo server that asks for datagrams again and
// again instead of blocking: the bound that the host's kernel sets.
type NativeSpin struct{ Native }

// Name implements System.
func (NativeSpin) Name() string { return "native-spin" }

func (n NativeSpin) prepare(l *lab.Lab, p Program) (*plan, error) {
	p.Argv = append(p.Argv[:len(p.Argv):len(p.Argv)], "spin")
	return n.Native.prepare(l, p)
}

var errLost = errors.New("a datagram was lost")

// runUDP measures round trips of datagrams.
func runUDP(ctx context.Context, r *runner) error {
	echo, err := buildGuest(ctx, r.dir, "udpecho")
	if err != nil {
		return err
	}
	ping, err := buildGuest(ctx, r.dir, "udpping")
	if err != nil {
		return err
	}
	p := Program{Argv: []string{echo, address().String(), strconv.Itoa(echoPort)}, Report: true}
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		probe := func(ctx context.Context, _ *server) error {
			_, lost, err := r.ping(ctx, ping, 1)
			if err == nil && lost > 0 {
				err = errLost
			}
			return err
		}
		return r.serve(ctx, sys, p, probe, func(s *server) error { return r.measureUDP(ctx, s, ping) })
	})
}

func (r *runner) measureUDP(ctx context.Context, s *server, ping string) error {
	count := 20000
	if r.o.Quick {
		count = 3000
	}
	if _, _, err := r.ping(ctx, ping, count/10); err != nil { // warm
		return err
	}
	before, err := s.cpu()
	if err != nil {
		return err
	}
	rtts, lost, err := r.ping(ctx, ping, count)
	if err != nil {
		return err
	}
	after, err := s.cpu()
	if err != nil {
		return err
	}
	if len(rtts) == 0 {
		return errLost
	}
	name := s.system.Name()
	r.c.add(name, "rtt_p50_us", Lower, Percentile(rtts, 50))
	r.c.add(name, "rtt_p99_us", Lower, Percentile(rtts, 99))
	r.c.add(name, "server_cpu_us_per_datagram", Lower, microsecondsEach(after-before, count))
	r.c.add(name, "lost_datagrams", Lower, float64(lost))
	return nil
}

// ping sends count datagrams and returns the round trip times in microseconds.
func (r *runner) ping(ctx context.Context, program string, count int) (rtts []float64, lost uint64, err error) {
	out, err := r.clientOutput(ctx, program, address().String(), strconv.Itoa(echoPort), strconv.Itoa(count), strconv.Itoa(echoSize))
	if err != nil {
		return nil, 0, err
	}
	return clients.ParseUDPPing(string(out))
}

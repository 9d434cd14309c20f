package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"junction/internal/lab"
)

// ringSizes are the lengths of frames in bytes. The longest is what a datagram holds.
var ringSizes = []int{64, 1500, 9000, 65000}

// ringBatch is how many frames are sent before a flush.
const ringBatch = 32

// medium is a way to carry frames between two threads.
type medium struct {
	name, about string
	open        func(l *lab.Lab, size int) (near, far port, err error)
}

// Name implements System.
func (m medium) Name() string { return m.name }

var errNoPrograms = errors.New("runs no programs")

func (m medium) prepare(*lab.Lab, Program) (*plan, error) { return nil, errNoPrograms }

// port is an end of a medium. One goroutine may send while another receives.
type port interface {
	// put sends a copy of a frame, or prepares to. It waits for room.
	put(frame []byte) error
	// flush lets all go that has been put.
	flush() error
	// take waits for frames, copies them to memory of the caller's own, and
	// returns how many there were.
	take() (int, error)
	// close ends it; a take that waits fails.
	close()
}

// media are what is compared.
func media() []System {
	return []System{
		medium{"seqpacket", "a pair of Unix sockets, a system call for each frame and side", openSeqpacket},
		medium{"veth-udp", "datagrams across a veth pair; those that are lost do not count", openUDP},
		medium{"channel", "a Go channel of buffers, copied into and out of", openChannel},
		medium{"ring-spin", "package ipc, both sides look again and again", openRing(false)},
		medium{"ring-sleep", "package ipc, both sides sleep when there is nothing to do", openRing(true)},
	}
}

// runRing measures throughput by size, and round trips of the smallest.
func runRing(ctx context.Context, r *runner) error {
	length := time.Second
	if r.o.Quick {
		length = 100 * time.Millisecond
	}
	return r.rounds(ctx, func(ctx context.Context, sys System) error {
		m := sys.(medium)
		r.c.Modes[m.name] = m.about
		for _, size := range ringSizes {
			perSecond, err := r.stream(m, size, length)
			if err != nil {
				return fmt.Errorf("frames of %d bytes: %w", size, err)
			}
			const mega, bitsPerByte, giga = 1e6, 8, 1e9
			r.c.add(m.name, fmt.Sprintf("%dB_mpps", size), Higher, perSecond/mega)
			r.c.add(m.name, fmt.Sprintf("%dB_gbit_per_s", size), Higher, perSecond*float64(size)*bitsPerByte/giga)
		}
		return r.roundTrips(ctx, m, length)
	})
}

// stream returns how many frames a second arrive.
func (r *runner) stream(m medium, size int, length time.Duration) (perSecond float64, err error) {
	near, far, err := m.open(r.lab, size)
	if err != nil {
		return 0, err
	}
	var stop atomic.Bool
	var arrived atomic.Uint64
	var sides sync.WaitGroup
	failed := make(chan error, 2)
	sides.Go(func() { failed <- send(near, make([]byte, size), &stop) })
	sides.Go(func() {
		for !stop.Load() {
			n, err := far.take()
			arrived.Add(uint64(n))
			if err != nil {
				failed <- err
				return
			}
		}
	})
	const warm = 5 // a fifth of the time before it counts
	time.Sleep(length / warm)
	before, began := arrived.Load(), time.Now()
	const most = 100 // on a machine with too much else to do
	for i := 0; i == 0 || i < most && arrived.Load() == before && len(failed) == 0; i++ {
		time.Sleep(length)
	}
	count, took := arrived.Load()-before, time.Since(began)
	select {
	case err = <-failed: // before it was told to stop
	default:
	}
	stop.Store(true)
	near.close()
	far.close()
	sides.Wait()
	if err == nil && count == 0 {
		err = errors.New("nothing arrived")
	}
	return float64(count) / took.Seconds(), err
}

func send(p port, frame []byte, stop *atomic.Bool) error {
	for !stop.Load() {
		for range ringBatch {
			if err := p.put(frame); err != nil {
				return err
			}
		}
		if err := p.flush(); err != nil {
			return err
		}
	}
	return nil
}

// roundTrips measures frames that go there and back again, one at a time.
func (r *runner) roundTrips(ctx context.Context, m medium, length time.Duration) error {
	size := ringSizes[0]
	near, far, err := m.open(r.lab, size)
	if err != nil {
		return err
	}
	var echo sync.WaitGroup
	echo.Go(func() {
		frame := make([]byte, size)
		for {
			if _, err := far.take(); err != nil {
				return
			}
			if errors.Join(far.put(frame), far.flush()) != nil {
				return
			}
		}
	})
	defer echo.Wait()
	defer far.close()
	defer near.close()
	const most = 1 << 20
	took := make([]float64, 0, most)
	frame := make([]byte, size)
	for end := time.Now().Add(length); len(took) < most && time.Now().Before(end) && ctx.Err() == nil; {
		start := time.Now()
		if err := errors.Join(near.put(frame), near.flush()); err != nil {
			return err
		}
		if _, err := near.take(); err != nil {
			return err
		}
		took = append(took, float64(time.Since(start).Nanoseconds())/2)
	}
	took = took[len(took)/10:] // warm by then
	if len(took) == 0 {
		return errors.New("no frame came back")
	}
	slices.Sort(took)
	r.c.add(m.name, "one_way_p50_ns", Lower, Percentile(took, 50))
	r.c.add(m.name, "one_way_p99_ns", Lower, Percentile(took, 99))
	return nil
}

// pause gives way now and then, for who spins may have the only CPU.
func pause(spins *int) {
	const often = 1 << 12
	if *spins++; *spins%often == 0 {
		runtime.Gosched()
	}
}

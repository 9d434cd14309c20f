package actors

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	corepage "junction/coresched/instance"
	"junction/internal/monitor/client"
	"junction/internal/monitor/cores"
	"junction/internal/monitor/wire"
)

// Light is what a light instance is, as the first argument of its role, in JSON.
type Light struct {
	Socket string `json:"socket"` // the monitor's
	Name   string `json:"name"`
	Board  string `json:"board,omitempty"`
	Number int    `json:"number"` // which of a board's actors
	// BestEffort and Guaranteed are what it wants of the scheduler, beside one kthread.
	BestEffort bool `json:"best_effort,omitempty"`
	Guaranteed int  `json:"guaranteed,omitempty"`
	// Computes is for how long, each time that it has something to do.
	Computes time.Duration `json:"computes_ns,omitempty"`
}

// joinTime is how long the monitor has to give a lease.
const joinTime = time.Minute

// play is what an instance does once its cores are scheduled.
type play func(l *Light, me *Actor, t *corepage.Taker)

// instance is a role of an instance that joins the monitor, and says "joined". It
// ends when wait returns.
func instance(as play, wait func() error) func(args []string) error {
	return func(args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("what instance? %q", args)
		}
		var l Light
		if err := json.Unmarshal([]byte(args[0]), &l); err != nil {
			return err
		}
		me := new(Actor)
		if l.Board != "" {
			b, err := OpenBoard(l.Board)
			if err != nil {
				return err
			}
			me = &b.Actors[l.Number]
		}
		ctx, cancel := context.WithTimeout(context.Background(), joinTime)
		defer cancel()
		lease, err := client.JoinInstance(ctx, l.Socket, l.Name, wire.Join{}, l.obey(me, as))
		if err != nil {
			return err
		}
		defer lease.Close()
		fmt.Println("joined")
		return wait()
	}
}

// obey has the play begin when cores are scheduled.
func (l *Light) obey(me *Actor, as play) client.Obey {
	return func(_ context.Context, verb string, _ json.RawMessage, files []int) (any, error) {
		if verb != wire.Cores {
			return nil, client.ErrVerb
		}
		if len(files) != corepage.Files {
			return nil, fmt.Errorf("%d files: %w", len(files), unix.EINVAL)
		}
		t, err := corepage.NewTaker([corepage.Files]int(files))
		files[0], files[1] = -1, -1
		if err != nil {
			return nil, err
		}
		go as(l, me, t)
		return wire.CoresWanted{Kthreads: 1, Guaranteed: l.Guaranteed, BestEffort: l.BestEffort}, nil
	}
}

// RelayRests is for how long a relay wants no core after it has given one up.
const RelayRests = 100 * time.Microsecond

// relay computes while it has a core, gives it up, and soon wants one again.
func relay(l *Light, me *Actor, t *corepage.Taker) {
	runtime.LockOSThread()
	for {
		t.Show(corepage.Demand{Want: 1}, true)
		g := t.Grant()
		for ; g.Kthreads < 1; g = t.Grant() {
			t.Settle(g.Seq)
			if t.Wait() != nil {
				return
			}
		}
		t.Settle(g.Seq)
		me.Runs.Add(Clock(), 0)
		compute(l.Computes)
		me.Leaves.Add(Clock(), 0)
		t.Show(corepage.Demand{}, true)
		// The core is gone when the grant says so; else the next one would be the last.
		for g = t.Grant(); g.Kthreads > 0; g = t.Grant() {
			if t.Wait() != nil {
				return
			}
		}
		t.Settle(g.Seq)
		asleep(RelayRests)
	}
}

// burner wants a core and computes for ever, whatever it is granted.
func burner(_ *Light, _ *Actor, t *corepage.Taker) {
	go func() {
		for t.Wait() == nil {
			t.Settle(t.Grant().Seq)
		}
	}()
	t.Show(corepage.Demand{Want: 1}, true)
	for {
		compute(time.Second)
	}
}

// forEver is for a role that reads the standard input itself, and ends with it.
func forEver() error { select {} }

// server sleeps until a byte comes by its standard input, writes down when it has
// it, and computes a little.
func server(l *Light, me *Actor, t *corepage.Taker) {
	go func() {
		for t.Wait() == nil {
			t.Settle(t.Grant().Seq)
		}
	}()
	runtime.LockOSThread()
	var b [1]byte
	for {
		// Not by Go's poller: what is measured is the kernel's way.
		if n, err := unix.Read(0, b[:]); err != nil || n == 0 {
			os.Exit(0)
		}
		now := Clock()
		t.Show(corepage.Demand{Want: 1}, true)
		me.Runs.Add(now, 0)
		me.Leaves.Add(Clock(), 0)
		compute(l.Computes)
		t.Show(corepage.Demand{}, true)
	}
}

// idler executes for a moment once in a second, by the very code that connects an
// instance's threads with the scheduler.
func idler(l *Light, _ *Actor, t *corepage.Taker) {
	threads := &lightThreads{}
	sharer := cores.Start(threads, t, cores.Options{Kthreads: 1, Guaranteed: l.Guaranteed, Delay: time.Second, Logger: slog.New(slog.DiscardHandler)})
	defer sharer.Stop()
	time.Sleep(time.Duration(os.Getpid()) * time.Millisecond % time.Second) // not all at once
	for {
		threads.execute(l.Computes)
		time.Sleep(time.Second)
	}
}

// lightThreads is one thread, as an instance's threads are.
type lightThreads struct {
	mu       sync.Mutex
	demand   cores.Demand
	parked   bool
	observer cores.Observer
}

func (f *lightThreads) execute(d time.Duration) {
	f.mu.Lock()
	f.demand.Executing = 1
	f.demand.Turns++
	if f.parked {
		f.parked = false
		f.observer.Woken()
	}
	f.mu.Unlock()
	compute(d)
	f.mu.Lock()
	f.demand.Executing = 0
	f.mu.Unlock()
}

// SetLimit implements cores.Threads. One thread is within any limit soon.
func (f *lightThreads) SetLimit(int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.observer != nil {
		f.observer.Settled()
	}
}

// Demand implements cores.Threads.
func (f *lightThreads) Demand() cores.Demand {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.demand
}

// Park implements cores.Threads.
func (f *lightThreads) Park() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parked = f.demand.Executing == 0
	return f.parked
}

// Observe implements cores.Threads.
func (f *lightThreads) Observe(o cores.Observer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.observer = o
}

// taker hears grants on the page and the doorbell of descriptors 3 and 4, without
// a monitor, and writes down when.
func taker(args []string) error {
	b, _, err := boardOf(args)
	if err != nil {
		return err
	}
	t, err := corepage.NewTaker([corepage.Files]int{3, 4})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for seq := t.Grant().Seq; t.Wait() == nil; {
		if g := t.Grant(); g.Seq != seq {
			seq = g.Seq
			b.Actors[0].Runs.Add(Clock(), 0)
		}
	}
	return nil
}

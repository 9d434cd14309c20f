package live

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

// A guard is told of each thread that is taken and given back, and restores
// those that were not given back when its input ends, or says nothing for
// silence: the actuator has died, or stands still.

const (
	beatEvery = 100 * time.Millisecond
	silence   = 10 * time.Second
)

// note is what a guard is told: a thread taken, one given back, or a sign of
// life.
type note struct {
	Take    int    `json:"take,omitempty"`
	Give    int    `json:"give,omitempty"`
	Started uint64 `json:"started,omitempty"`
	Policy  uint32 `json:"policy,omitempty"`
	Nice    int32  `json:"nice,omitempty"`
	CPUs    string `json:"cpus,omitempty"`
}

// guard is the actuator's end.
type guard struct {
	cmd   *exec.Cmd
	pipe  io.WriteCloser
	mu    sync.Mutex
	enc   *json.Encoder
	ended chan struct{}
	err   error // once it has ended
}

// startGuard starts cmd, a program that calls Guard with its standard input.
func startGuard(cmd *exec.Cmd) (*guard, error) {
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // a ^C is for the actuator
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	g := &guard{cmd: cmd, pipe: pipe, enc: json.NewEncoder(pipe), ended: make(chan struct{})}
	go func() {
		g.err = cmd.Wait()
		close(g.ended)
	}()
	return g, nil
}

func (g *guard) tell(n *note) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.enc.Encode(n)
}

func (g *guard) take(tid int, started uint64, o *original) error {
	return g.tell(&note{Take: tid, Started: started, Policy: o.policy, Nice: o.nice, CPUs: o.cpus.String()})
}

// close ends the guard, which restores what was not given back.
func (g *guard) close() error {
	_ = g.pipe.Close() // it may have ended by itself
	<-g.ended
	return g.err
}

// taken is a thread that a guard watches over.
type taken struct {
	started uint64
	original
}

// Guard is all that the guard's process does; in is its standard input. It
// returns when there is nothing left to guard.
func Guard(in *os.File) error {
	// Who ends all of a service's processes at once ends the actuator too.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	threads := map[int]taken{}
	lines := make(chan note)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			var n note
			if json.Unmarshal(s.Bytes(), &n) == nil {
				lines <- n
			}
		}
	}()
	timer := time.NewTimer(silence)
	defer timer.Stop()
	for {
		select {
		case n, ok := <-lines:
			if !ok {
				return restoreAll(threads)
			}
			heed(threads, &n)
			timer.Reset(silence)
		case <-timer.C:
			return errors.Join(errors.New("no sign of life of the actuator; threads restored"), restoreAll(threads))
		}
	}
}

func heed(threads map[int]taken, n *note) {
	switch {
	case n.Take > 0:
		if cpus, err := cs.ParseCPUSet(n.CPUs); err == nil {
			threads[n.Take] = taken{n.Started, original{n.Policy, n.Nice, cpus}}
		}
	case n.Give > 0:
		delete(threads, n.Give)
	}
}

func restoreAll(threads map[int]taken) error {
	var errs []error
	for tid, t := range threads {
		if s, err := readStat(tid); err != nil || s.started != t.started {
			continue // it has ended, and its number may be somebody else's
		}
		if err := t.restore(tid); err != nil {
			errs = append(errs, fmt.Errorf("restore thread %d: %w", tid, err))
		}
	}
	return errors.Join(errs...)
}

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"junction/internal/bench/proctree"
	"junction/internal/lab"
	"junction/internal/monitor"
	"junction/internal/monitor/client"
	"junction/netserver"
	"junction/switch/protocol"
)

// ServerMode runs programs in instances behind a network server of their own.
type ServerMode struct {
	// Path of the junction_run program. junctiond and netserver lie beside it.
	Path string
	// Driver of the network server's uplink: afxdp or tap.
	Driver string
	// Spin is how long instance and network server look for packets.
	Spin time.Duration
}

// Name implements System.
func (s ServerMode) Name() string {
	name := "server-" + s.Driver
	if s.Spin > 0 {
		name += "-spin"
	}
	return name
}

func (s ServerMode) prepare(l *lab.Lab, p Program) (*plan, error) {
	d, err := startDaemon(l, s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	instance := []string{s.Path, "--mode", "server", "--socket", d.socket(), "--spin", s.Spin.String()}
	argv := instance[:len(instance):len(instance)]
	if p.Report {
		argv = append(argv, "--stats=json")
	}
	return &plan{
		argv: append(append(argv, "--"), p.Argv...),
		mode: func(log []byte) (string, error) {
			mode, err := Junction{Spin: s.Spin}.mode(log)
			return mode + ", uplink " + d.uplink, err
		},
		undo:   d.stop,
		daemon: d,
		peer: func(argv []string) (*lab.Namespace, []string) {
			return l.Server, append(append(instance[:len(instance):len(instance)], "--"), argv...)
		},
	}, nil
}

// daemon is a running junctiond with its network server.
type daemon struct {
	cmd    *lab.Cmd
	dir    string
	log    *os.File
	done   chan struct{} // closed when it has ended
	uplink string        // what is really in use
	mode   protocol.Mode // that its instance is in
}

// Times of a daemon.
const (
	daemonReady = 60 * time.Second
	daemonStop  = 30 * time.Second
)

func (d *daemon) socket() string { return filepath.Join(d.dir, "monitor.sock") }

// startDaemon starts junctiond in the server namespace and waits for its network server.
func startDaemon(l *lab.Lab, s ServerMode) (_ *daemon, err error) {
	d := &daemon{done: make(chan struct{}), mode: protocol.Server}
	if d.dir, err = os.MkdirTemp("", "junction-bench-daemon-"); err != nil {
		return nil, err
	}
	if d.log, err = os.Create(filepath.Join(d.dir, "log")); err != nil {
		return nil, errors.Join(err, os.RemoveAll(d.dir))
	}
	d.cmd = l.Server.Command(context.Background(), filepath.Join(filepath.Dir(s.Path), "junctiond"), "--socket", d.socket(),
		"--nic", lab.ServerNIC, "--driver", s.Driver, "--addr", serverAddr.String(), "--spin", s.Spin.String(),
		"--hang-after", "5s") // the load is no reason to kill it
	d.cmd.Stdout, d.cmd.Stderr, d.cmd.Dir = d.log, d.log, "/"
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(err, d.log.Close(), os.RemoveAll(d.dir))
	}
	go func() {
		defer close(d.done)
		_ = d.cmd.Wait() // it ends when it is told to
	}()
	if err := d.ready(); err != nil {
		text, _ := os.ReadFile(d.log.Name())
		return nil, errors.Join(fmt.Errorf("junctiond: %w; it printed: %.600q", err, text), d.stop())
	}
	return d, nil
}

// ready waits until the network server serves. The first caller has nothing to
// wait for but the socket, so it asks again and again.
func (d *daemon) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), daemonReady)
	defer cancel()
	for {
		var s monitor.Status
		err := d.ask(ctx, "status", &s)
		if err == nil && s.Server.Ready {
			m := s.Server.Uplink.Mode
			d.uplink = (&junctionDevice{Driver: m.Driver, Attach: m.Attach, Copy: m.Copy, Queues: m.Queues}).String()
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-d.done:
			return errors.New("ended before it served")
		case <-ctx.Done():
			return errors.Join(errors.New("does not serve"), err)
		}
	}
}

func (d *daemon) ask(ctx context.Context, verb string, v any) error {
	return d.order(ctx, verb, nil, v)
}

// order is an operator's, with args unless they are nil.
func (d *daemon) order(ctx context.Context, verb string, args, v any) error {
	o, err := client.DialOperator(ctx, d.socket())
	if err != nil {
		return err
	}
	defer o.Close()
	return o.Ask(ctx, verb, args, v)
}

// usage returns the CPU time of monitor and network server, and how many frames
// the latter has taken in.
func (d *daemon) usage(ctx context.Context) (cpu time.Duration, frames uint64, err error) {
	if cpu, err = d.cpu(); err != nil {
		return 0, 0, err
	}
	var s netserver.Stats
	if err := d.ask(ctx, "stats", &s); err != nil {
		return 0, 0, err
	}
	frames = s.Uplink.In + s.Gone.In
	for _, p := range s.Ports {
		frames += p.In
	}
	return cpu, frames, nil
}

func (d *daemon) cpu() (time.Duration, error) { return proctree.CPU(d.cmd.Process.Pid) }

// stop ends both and removes what they leave.
func (d *daemon) stop() error {
	err := d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
		err = nil
	case <-time.After(daemonStop):
		err = errors.Join(errors.New("junctiond does not end"), err, d.cmd.Process.Kill())
		<-d.done
	}
	return errors.Join(err, d.log.Close(), os.RemoveAll(d.dir))
}

// Loopback runs server and client on the host's kernel, in one namespace.
type Loopback struct{}

// Name implements System.
func (Loopback) Name() string { return "loopback" }

func (Loopback) prepare(l *lab.Lab, p Program) (*plan, error) {
	return &plan{
		argv:    p.Argv,
		mode:    func([]byte) (string, error) { return "the host's kernel, 127.0.0.1", nil },
		undo:    func() error { return nil },
		address: netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		peer:    func(argv []string) (*lab.Namespace, []string) { return l.Server, argv },
	}, nil
}

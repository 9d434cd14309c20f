package monitor

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"junction/coresched/live"
	"junction/ipc/control"
	"junction/portmap"
	"junction/portmap/table"
)

// serverMode is where frames go that are for the network server to deliver.
const serverMode = table.Server

// Monitor is a running monitor.
type Monitor struct {
	opts  Options
	start time.Time

	mu sync.Mutex
	// +checklocks:mu
	ports *portmap.Map
	// +checklocks:mu
	table *table.Writer
	// +checklocks:mu
	instances map[portmap.Instance]*instance
	// +checklocks:mu
	awaiting map[portmap.Instance]record // of the monitor before, not back yet
	// +checklocks:mu
	last portmap.Instance // number given last
	// +checklocks:mu
	opened bool // open is closed, or about to be
	// +checklocks:mu
	restored bool // the portmap has what it had under the monitor before

	offences offences
	switches notice // of a mode switch that has ended
	line     line   // who waits for a queue

	auto    autopilot
	sched   scheduler
	server  supervisor
	uplink  uplink
	open    chan struct{} // closed when the portmap is whole and everybody is served
	resumed sync.WaitGroup
}

// Run listens and serves until ctx is done. It returns nil then, and leaves
// nothing behind. If a monitor died at the same socket, it takes over from it.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	m := &Monitor{
		opts: o, start: time.Now(), instances: make(map[portmap.Instance]*instance),
		open: make(chan struct{}), sched: scheduler{resumed: make(chan struct{})},
	}
	m.server.init(m)
	m.uplink.m = m
	m.auto.init(m)
	if err := os.MkdirAll(filepath.Dir(o.Socket), 0o755); err != nil {
		return err
	}
	l, err := control.Listen(ctx, o.Socket, control.ListenOptions{Files: true})
	if err != nil {
		return err
	}
	if err := live.Reclaim(o.Sched.Cpusets); err != nil {
		o.Logger.Warn("cores that a monitor that died has kept for an enclave", "error", err)
	}
	before, err := o.predecessor()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	if err := o.openState(); err != nil {
		return errors.Join(err, l.Close())
	}
	return m.run(ctx, l, before)
}

func (m *Monitor) run(ctx context.Context, l *control.Listener, before state) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer func() {
		err = errors.Join(err, m.sched.close())
		if err == nil || m.table != nil {
			err = errors.Join(err, os.RemoveAll(m.opts.stateDir()))
		}
		if m.table != nil {
			err = errors.Join(err, m.table.Close())
		}
		err = errors.Join(err, m.uplink.close())
	}()
	defer m.resumed.Wait()
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer stop()
	helpers.Go(func() { m.server.supervise(ctx, before.Server, before.Spare) })
	helpers.Go(func() { m.auto.run(ctx) })
	helpers.Go(func() { m.watchLinks(ctx) })
	helpers.Go(func() { m.sched.resume(m.opts.Sched) })
	failed := make(chan error, 2)
	help := func(f func() error) {
		helpers.Go(func() {
			if err := f(); err != nil {
				failed <- err
				stop()
			}
		})
	}
	help(func() error { return m.begins(ctx, before) })
	if addr := m.opts.Metrics; addr != "" {
		help(func() error { return m.serveMetrics(ctx, addr) })
	}
	m.opts.Logger.Info("monitor listens", "socket", m.opts.Socket, "nic", m.opts.Uplink.NIC)
	err = l.Serve(ctx, m.serve)
	select {
	case first := <-failed:
		return errors.Join(first, err)
	default:
		return err
	}
}

// begins makes the portmap, after a predecessor's if there was one, and opens
// the monitor to all.
func (m *Monitor) begins(ctx context.Context, before state) (err error) {
	if before.Schema == 0 {
		err = m.begin(ctx, nil, nil)
	} else {
		err = m.takeOver(ctx, before)
	}
	if err == nil {
		m.mu.Lock()
		m.opened = true
		m.save()
		m.mu.Unlock()
		close(m.open)
	}
	return err
}

// randomize sets what has to be random.
func randomize(o *portmap.Options) error {
	if _, err := rand.Read(o.Seed[:]); err != nil {
		return err
	}
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	o.HashSeed = binary.NativeEndian.Uint64(seed[:])
	return nil
}

// publish writes what has changed in the portmap to the table.
//
// +checklocks:m.mu
func (m *Monitor) publish() { m.table.Apply(m.ports.Changes()) }

// advance tells the portmap the time.
//
// +checklocks:m.mu
func (m *Monitor) advance() {
	_ = m.ports.Advance(time.Since(m.start)) // a clock that does not go back
}

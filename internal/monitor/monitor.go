package monitor

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

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
	last portmap.Instance // number given last

	server supervisor
}

// Run listens and serves until ctx is done. It returns nil then.
func Run(ctx context.Context, o Options) (err error) {
	m, err := newMonitor(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.table.Close()) }()
	if err := os.MkdirAll(filepath.Dir(m.opts.Socket), 0o755); err != nil {
		return err
	}
	l, err := control.Listen(ctx, m.opts.Socket, control.ListenOptions{})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var supervised sync.WaitGroup
	supervised.Go(func() { m.server.supervise(ctx) })
	defer supervised.Wait()
	defer stop()
	m.opts.Logger.Info("monitor listens", "socket", m.opts.Socket, "nic", m.opts.Uplink.NIC)
	return l.Serve(ctx, m.serve)
}

func newMonitor(o Options) (*Monitor, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	po, err := o.portmapOptions()
	if err != nil {
		return nil, err
	}
	m := &Monitor{opts: o, start: time.Now(), instances: make(map[portmap.Instance]*instance)}
	m.server.init(m)
	if m.ports, err = portmap.New(po); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	if m.table, err = table.NewWriter(m.ports.Geometry(), nil); err != nil {
		return nil, err
	}
	m.publish()
	return m, nil
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

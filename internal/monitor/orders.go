package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"junction/internal/monitor/wire"
	"junction/ipc/control"
	"junction/netserver"
)

// restart replaces the network server, once there is a spare, and waits for the
// next one.
func (m *Monitor) restart(ctx context.Context) (ServerStatus, error) {
	x := m.server.current()
	if x == nil {
		return ServerStatus{}, errNoServer
	}
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := m.server.tryProgram(ctx); err != nil {
		return ServerStatus{}, fmt.Errorf("restart the network server: %w; the present one goes on", err)
	}
	m.server.replace("asked to restart it")
	if err := m.server.awaitOther(ctx, x); err != nil {
		return ServerStatus{}, errors.Join(errNoServer, err)
	}
	return m.server.status(), nil
}

// upgrade replaces the network server by another program. If that does not get
// ready, the one before is started again.
func (m *Monitor) upgrade(ctx context.Context, a wire.Ask) (ServerStatus, error) {
	var u wire.Upgrade
	if err := json.Unmarshal(a.Args, &u); err != nil {
		return ServerStatus{}, fmt.Errorf("%w: %w", err, unix.EINVAL)
	}
	if err := unix.Access(u.Path, unix.X_OK); err != nil {
		return ServerStatus{}, fmt.Errorf("%s: %w", u.Path, err)
	}
	before := m.server.setProgram([]string{u.Path})
	status, killed, err := m.upgraded(ctx)
	if err == nil {
		return status, nil
	}
	m.server.setProgram(before)
	if killed {
		m.server.kill("the upgrade failed")
	}
	return ServerStatus{}, fmt.Errorf("%s: %w; the one before serves again", u.Path, err)
}

// upgraded starts the program that was set as a spare, and when that has connected
// ends the present server, for the spare to take its place. It waits until that is
// ready, or has ended without getting so. Not killed: the present server went on.
func (m *Monitor) upgraded(ctx context.Context) (status ServerStatus, killed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := m.server.tryProgram(ctx); err != nil {
		return ServerStatus{}, false, err
	}
	failures := m.server.failures()
	x := m.server.current()
	m.server.replace("asked to upgrade it")
	ready := make(chan error, 1)
	go func() { ready <- m.server.awaitOther(ctx, x) }()
	select {
	case how := <-failures:
		return ServerStatus{}, true, fmt.Errorf("it ended before it was ready: %s", how)
	case err := <-ready:
		return m.server.status(), true, err
	}
}

// startTime is how long an instance has to do what it is told.
const startTime = 10 * time.Second

// askInstance passes an order on to the instance that it names. It takes files
// over. What a user may do to an instance of theirs with kill(2) they may do here.
func (m *Monitor) askInstance(ctx context.Context, peer control.Peer, a wire.Ask, files ...int) (wire.Answer, error) {
	defer closeAll(files)
	var to wire.Target
	if err := json.Unmarshal(a.Args, &to); err != nil {
		return nil, fmt.Errorf("%w: %w", err, unix.EINVAL)
	}
	i, err := m.find(to.ID)
	if err != nil {
		return nil, err
	}
	if err := privileged(peer); err != nil && peer.UID != i.peer.UID {
		return nil, err
	}
	gone := fmt.Errorf("instance %d has ended: %w", to.ID, unix.ESRCH)
	id, answer, ok := i.asked.begin()
	if !ok {
		return nil, gone
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := wire.Send(ctx, i.conn, id, wire.TypeAsk, a, files...); err != nil {
		return nil, errors.Join(gone, err)
	}
	v, err := i.asked.await(ctx, id, answer, gone)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("instance %d does not answer: %w", to.ID, unix.ETIMEDOUT)
	}
	return v, err
}

// limit sets what an instance may send.
func (m *Monitor) limit(ctx context.Context, a wire.Ask) (InstanceStatus, error) {
	var l wire.Limit
	if err := json.Unmarshal(a.Args, &l); err != nil {
		return InstanceStatus{}, fmt.Errorf("%w: %w", err, unix.EINVAL)
	}
	if l.Weight != nil && (*l.Weight < 1 || *l.Weight > netserver.MaxWeight) {
		return InstanceStatus{}, fmt.Errorf("weight %d: accepted: 1 to %d: %w", *l.Weight, netserver.MaxWeight, unix.EINVAL)
	}
	i, err := m.find(l.ID)
	if err != nil {
		return InstanceStatus{}, err
	}
	err = i.sw.setLimit(l.Rate != nil && *l.Rate > 0, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if l.Rate != nil {
			i.rate = *l.Rate
		}
		if l.Weight != nil {
			i.weight = *l.Weight
		}
		m.save()
	})
	if err != nil {
		return InstanceStatus{}, err
	}
	status := m.instanceStatus(i)
	// A server that is not there gets it with the instance.
	if _, err := m.askServer(ctx, a); err != nil && !errors.Is(err, errNoServer) {
		return InstanceStatus{}, err
	}
	return status, nil
}

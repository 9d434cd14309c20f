package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"junction/internal/bench/load"
	"junction/internal/monitor"
	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/switch/protocol"
)

// switchable is a server in an instance behind a network server, under a load
// whose connections stay open while it is switched.
type switchable struct {
	load   *load.Load
	daemon *daemon
}

// loaded has use work with a load on the server: so many connections.
func (r *runner) loaded(ctx context.Context, s *server, port, connections int, exchange exchange, use func(*switchable) error) error {
	dial := func(ctx context.Context) (net.Conn, error) {
		return r.lab.Client.DialContext(ctx, "tcp", hostPort(port))
	}
	e, err := exchange.learn(ctx, dial)
	if err != nil {
		return err
	}
	l, err := load.Start(ctx, dial, connections, e)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Wait(ctx, warmRequests); err != nil {
		return err
	}
	return use(&switchable{load: l, daemon: s.plan.daemon})
}

// warmRequests are made before anything counts.
const warmRequests = 1000

// exchange is what a load asks, and how the answer is known.
type exchange func(net.Conn) (load.Exchange, error)

func (e exchange) learn(ctx context.Context, dial func(context.Context) (net.Conn, error)) (load.Exchange, error) {
	c, err := dial(ctx)
	if err != nil {
		return load.Exchange{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	return e(c)
}

// getFile asks nginx for a file that holds body.
func getFile(path string, body []byte) exchange {
	return func(c net.Conn) (load.Exchange, error) {
		return load.HTTP(c, hostPort(nginxPort), path, body)
	}
}

// getValue asks redis for a value, which it stores first.
func getValue(value string) exchange {
	return func(c net.Conn) (load.Exchange, error) {
		const stored = "+OK\r\n"
		if _, err := fmt.Fprintf(c, "SET key %s\r\n", value); err != nil {
			return load.Exchange{}, err
		}
		answer := make([]byte, len(stored))
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != stored {
			return load.Exchange{}, errors.Join(fmt.Errorf("redis answers %q to SET", answer), err)
		}
		return load.Exchange{Request: []byte("GET key\r\n"), Answer: fmt.Appendf(nil, "$%d\r\n%s\r\n", len(value), value)}, nil
	}
}

// switchAttempts is how often a switch is ordered that is rolled back: on a
// machine with too much to do one may be.
const switchAttempts = 5

// to switches the instance to a mode, unless it is in it, and returns how that
// went, also when it was rolled back.
func (on *switchable) to(ctx context.Context, mode protocol.Mode) (results []wire.SwitchResult, err error) {
	for on.daemon.mode != mode {
		if len(results) == switchAttempts {
			return results, fmt.Errorf("switch to %v: rolled back %d times: %s", mode, len(results), results[len(results)-1].Reason)
		}
		r, err := on.daemon.switchTo(ctx, mode)
		if err != nil {
			return results, err
		}
		results = append(results, r)
		on.daemon.mode = r.Mode
	}
	return results, nil
}

// switchTo orders a switch of the only instance, and returns when it is over.
func (d *daemon) switchTo(ctx context.Context, mode protocol.Mode) (r wire.SwitchResult, err error) {
	o, err := client.DialOperator(ctx, d.socket())
	if err != nil {
		return r, err
	}
	defer o.Close()
	var s monitor.Status
	if err := o.Ask(ctx, "status", nil, &s); err != nil {
		return r, err
	}
	if len(s.Instances) != 1 {
		return r, fmt.Errorf("switch: there are %d instances", len(s.Instances))
	}
	return o.Switch(ctx, wire.SwitchOrder{Target: wire.Target{ID: s.Instances[0].ID}, Mode: mode, Wait: true})
}

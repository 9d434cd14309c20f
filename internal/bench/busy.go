package bench

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"

	"junction/internal/bench/load"
	"junction/internal/monitor"
	"junction/internal/monitor/client"
	"junction/internal/monitor/wire"
	"junction/switch/protocol"
)

// busy is a server under a load whose connections stay open.
type busy struct {
	load   *load.Load
	daemon *daemon // that switches it, if it is behind a network server
}

// loaded has use work with a load on the server: so many connections. Requests
// that fail after use's last mark fail it.
func (r *runner) loaded(ctx context.Context, s *server, port, connections int, exchange exchange, use func(*busy) error) error {
	dial := r.dialer(s, port)
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
	if err := use(&busy{load: l, daemon: s.plan.daemon}); err != nil {
		return err
	}
	last, err := l.Stop()
	if err != nil {
		return err
	}
	_, err = faultless(last)
	return err
}

// dialer connects to a server: from the client namespace, or from its own if it is
// on the loopback device.
func (r *runner) dialer(s *server, port int) func(context.Context) (net.Conn, error) {
	from := r.lab.Client
	if s.address().IsLoopback() {
		from = r.lab.Server
	}
	to := net.JoinHostPort(s.address().String(), strconv.Itoa(port))
	return func(ctx context.Context) (net.Conn, error) { return from.DialContext(ctx, "tcp", to) }
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
		store := load.Exchange{Request: fmt.Appendf(nil, "SET key %s\r\n", value), Answer: []byte("+OK\r\n")}
		return load.Exchange{Request: []byte("GET key\r\n"), Answer: fmt.Appendf(nil, "$%d\r\n%s\r\n", len(value), value)}, store.Once(c)
	}
}

// setItem stores an item of so many bytes with memcached, again and again.
func setItem(bytes int) exchange {
	return func(net.Conn) (load.Exchange, error) {
		return load.Exchange{
			Request: fmt.Appendf(nil, "set key 0 0 %d\r\n%s\r\n", bytes, item(bytes)),
			Answer:  []byte("STORED\r\n"),
		}, nil
	}
}

// getItem asks memcached for an item, which it stores first.
func getItem(bytes int) exchange {
	return func(c net.Conn) (load.Exchange, error) {
		e, err := setItem(bytes)(c)
		if err == nil {
			err = e.Once(c)
		}
		return load.Exchange{
			Request: []byte("get key\r\n"),
			Answer:  fmt.Appendf(nil, "VALUE key 0 %d\r\n%s\r\nEND\r\n", bytes, item(bytes)),
		}, err
	}
}

func item(n int) []byte { return bytes.Repeat([]byte("v"), n) }

// switchAttempts is how often a switch is ordered that is rolled back: on a
// machine with too much to do one may be.
const switchAttempts = 5

// to switches the instance to a mode, unless it is in it, and returns how that
// went, also when it was rolled back.
func (on *busy) to(ctx context.Context, mode protocol.Mode) (results []wire.SwitchResult, err error) {
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

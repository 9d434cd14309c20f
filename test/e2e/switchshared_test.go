package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/internal/lab"
	"junction/switch/protocol"
)

// TestSwitchNeighbours: of instances on the shared address some are in direct mode
// and some in server mode at the same time, and each in turn in both. Meanwhile
// ports are opened and closed: by a program that listens now here, now there, by
// connections from outside, from an instance to another, and from an instance that only
// connects. None fails.
func TestSwitchNeighbours(t *testing.T) {
	rounds := min(max(2, switches(t)/3), 100)
	eachServerRig(t, func(t *testing.T, r *rig) {
		outward := r.answerAt(7)
		load := new(running)
		startRedisLoad(t, r, load, addr4)
		defer load.stop()
		echo := r.startNamed("echo", guest, "tcpecho", ":7")
		echo.await("ready")
		const forEver = "1000000000"
		out := r.startNamed("out", guest, "dial", forEver, outward.l.Addr().String())
		between := r.startNamed("between", guest, "dial", forEver, netip.AddrPortFrom(addr4, 7).String())
		const first, ports = 9000, 8
		reopen := r.startNamed("reopen", guest, "reopen", fmt.Sprint(first), fmt.Sprint(ports))
		reopen.await("ready")
		load.client(t, func(n int) error {
			return r.dialOpened(netip.AddrPortFrom(addr4, uint16(first+n%ports)), fmt.Sprint("opening ", n), load)
		})
		var inward atomic.Uint64
		load.client(t, func(n int) error {
			inward.Add(1)
			return r.dialEcho(netip.AddrPortFrom(addr4, 7), fmt.Sprint("connection ", n))
		})
		goOn := func() {
			t.Helper()
			in, out := inward.Load(), outward.count.Load()
			require.Eventually(t, func() bool {
				return t.Failed() || inward.Load() > in+5 && outward.count.Load() > out+5
			}, time.Minute, time.Millisecond)
			load.goesOn(t)
		}
		goOn()
		op := r.operator()
		ids := map[string]uint32{"it": r.idOf("it"), "echo": r.idOf("echo"), "out": r.idOf("out"), "between": r.idOf("between"), "reopen": r.idOf("reopen")}
		modes := []protocol.Mode{protocol.Direct, protocol.Server}
		for n := range 2 * rounds {
			here, there := modes[n%2], modes[1-n%2]
			for name, to := range map[string]protocol.Mode{"it": here, "out": here, "echo": there, "between": there, "reopen": there} {
				op.switchTo(ids[name], to)
				mode, _ := r.modeOf(name)
				require.Equal(t, to.String(), mode)
			}
			goOn()
		}
		load.stop()
		for _, i := range []*instance{out, between, reopen} {
			require.True(t, i.running(), "a connection of an instance failed")
			i.terminate(143)
			i.checkStats()
		}
		listeners := map[string]string{
			"tcp/198.18.0.2:6379": "it", "tcp/[fd00:18::2]:6379": "it", "tcp/198.18.0.2:7": "echo", "tcp/[fd00:18::2]:7": "echo",
		}
		require.Eventually(t, func() bool { return maps.Equal(listeners, r.portOwners()) }, time.Minute, 10*time.Millisecond, "ports left over")
		t.Logf("%d connections from outside, %d to there", inward.Load(), outward.count.Load())
	})
}

// dialOpened is dialEcho to a port that is about to be opened, unless the load ends before.
func (r *rig) dialOpened(addr netip.AddrPort, msg string, load *running) error {
	for {
		err := r.dialEcho(addr, msg)
		if !errors.Is(err, unix.ECONNREFUSED) {
			return err
		}
		if load.ended.Load() {
			return nil
		}
		time.Sleep(time.Millisecond) // between attempts
	}
}

// dialEcho makes a connection to an echo server and uses it once.
func (r *rig) dialEcho(addr netip.AddrPort, msg string) error {
	c, err := r.dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, msg); err != nil {
		return err
	}
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != msg {
		return fmt.Errorf("got %q: %w", got, err)
	}
	return nil
}

// answerer echoes one message on each connection and closes it first, so that
// the other side's ports are free at once.
type answerer struct {
	l     net.Listener
	count atomic.Uint64
	over  context.Context // ends what an instance that was ended has left
	wg    sync.WaitGroup
}

// answerAt starts one at the client's address.
func (r *rig) answerAt(port uint16) *answerer {
	r.t.Helper()
	l, err := r.Client.Listen("tcp", netip.AddrPortFrom(lab.ClientAddr4.Addr(), port).String())
	require.NoError(r.t, err)
	over, end := context.WithCancel(context.Background())
	a := &answerer{l: l, over: over}
	a.wg.Go(a.run)
	r.t.Cleanup(func() {
		end()
		_ = l.Close()
		a.wg.Wait()
	})
	return a
}

func (a *answerer) run() {
	for {
		c, err := a.l.Accept()
		if err != nil {
			return
		}
		a.count.Add(1)
		a.wg.Go(func() { a.answer(c) })
	}
}

func (a *answerer) answer(c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(a.over, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	b := make([]byte, 1024)
	if n, err := c.Read(b); err == nil {
		_, _ = c.Write(b[:n]) // the other side sees what is missing
	}
}

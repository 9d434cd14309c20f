package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// TestRedisValues sets and gets 100,000 keys and compares every value.
func TestRedisValues(t *testing.T) {
	matrix(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		i, addr := r.startServer(t, "redis")
		c := newRESP(r.mustDial(addr, 2*time.Minute))
		const keys, pipeline = 100_000, 500
		for from := 0; from < keys; from += pipeline {
			require.NoError(t, setAndGet(c, from, pipeline))
		}
		require.NoError(t, c.send("DBSIZE"))
		require.NoError(t, c.flush())
		size, err := c.receive()
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(keys), size)
		i.terminate(0)
	})
}

// setAndGet pipelines a SET and a GET for each of n keys.
func setAndGet(c *resp, from, n int) error {
	for k := from; k < from+n; k++ {
		c.send("SET", fmt.Sprint("key:", k), redisValue(k))
		c.send("GET", fmt.Sprint("key:", k))
	}
	if err := c.flush(); err != nil {
		return err
	}
	for k := from; k < from+n; k++ {
		for _, want := range []string{"OK", redisValue(k)} {
			if got, err := c.receive(); err != nil || got != want {
				return fmt.Errorf("key %d: got %q, want %q: %w", k, got, want, err)
			}
		}
	}
	return nil
}

// redisValue has a length of its own, from 0 to 256 bytes, and a content of its own.
func redisValue(k int) string {
	return string(bytes.Repeat(fmt.Appendf(nil, "%08x", k*2654435761), 32)[:k%257])
}

// TestParallelConnections holds 1,000 connections open and uses them all.
func TestParallelConnections(t *testing.T) {
	const connections, rounds = 1000, 5
	matrix(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		i, addr := r.startServer(t, "redis")
		conns := make([]net.Conn, connections)
		for n := range conns {
			conns[n] = r.mustDial(addr, time.Minute)
		}
		for range rounds {
			requireNoErrors(t, inParallel(conns, useConnection))
		}
		require.Contains(t, r.client("redis-cli", append(hostPort(addr), "info", "clients")...),
			fmt.Sprintf("connected_clients:%d\r\n", connections+1))
		i.terminate(0)
	})
}

// useConnection sets and gets a key of the connection's own.
func useConnection(n int, conn net.Conn) error {
	return setAndGet(newRESP(conn), n, 1)
}

// inParallel calls f for each connection at once and returns what went wrong.
func inParallel(conns []net.Conn, f func(int, net.Conn) error) []error {
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	for n, c := range conns {
		wg.Go(func() {
			if err := f(n, c); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("connection %d: %w", n, err))
			}
		})
	}
	wg.Wait()
	return errs
}

func requireNoErrors(t *testing.T, errs []error) {
	t.Helper()
	if len(errs) > 0 {
		t.Fatalf("%d errors; the first: %v", len(errs), errs[0])
	}
}

// TestShortConnections makes 10,000 connections that the server closes first,
// and 10,000 that the client closes first, and looks whether it still serves.
func TestShortConnections(t *testing.T) {
	skipLong(t)
	matrix(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		i, addr := r.startServer(t, "nginx")
		for _, closer := range []string{"close", "keep-alive"} {
			requireNoErrors(t, manyRequests(r, addr, 10_000, closer))
		}
		checkBody(t, r.http(), url(addr, "file-1048576"), hashOf(0, 1<<20), 1<<20)
		i.terminate(0)
	})
}

// manyRequests makes n requests, each on a connection of its own, eight at a time.
func manyRequests(r *rig, addr netip.AddrPort, n int, connection string) []error {
	const workers = 8
	lanes := make([]net.Conn, workers) // only their number counts
	return inParallel(lanes, func(int, net.Conn) error {
		for range n / workers {
			if err := oneRequest(r, addr, connection); err != nil {
				return err
			}
		}
		return nil
	})
}

// oneRequest fetches a file of 100 bytes on a new connection.
func oneRequest(r *rig, addr netip.AddrPort, connection string) error {
	c, err := r.dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "GET /file-100 HTTP/1.1\r\nHost: x\r\nConnection: %s\r\n\r\n", connection); err != nil {
		return err
	}
	want := pattern(100, 100)
	var got bytes.Buffer
	if connection == "close" {
		_, err = got.ReadFrom(c)
	} else {
		err = readUntil(c, &got, want)
	}
	if err != nil || !bytes.HasPrefix(got.Bytes(), []byte("HTTP/1.1 200 ")) || !bytes.HasSuffix(got.Bytes(), want) {
		return fmt.Errorf("after %d bytes: %q: %w", got.Len(), got.String(), err)
	}
	return nil
}

// readUntil reads until what was read ends with suffix.
func readUntil(c io.Reader, to *bytes.Buffer, suffix []byte) error {
	buf := make([]byte, 4096)
	for !bytes.HasSuffix(to.Bytes(), suffix) {
		n, err := c.Read(buf)
		to.Write(buf[:n])
		if err != nil {
			return err
		}
	}
	return nil
}

// TestShortConnectionsOut makes 10,000 connections from inside an instance.
func TestShortConnectionsOut(t *testing.T) {
	skipLong(t)
	matrix(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		l, err := r.Client.Listen("tcp", netip.AddrPortFrom(lab.ClientAddr4.Addr(), 7).String())
		require.NoError(t, err)
		var served sync.WaitGroup
		defer served.Wait()
		defer l.Close()
		served.Go(func() { echoConnections(l) })

		i := r.start(nil, guest, "dial", "10000", l.Addr().String())
		i.await("10000 connections")
		require.Zero(t, i.exit())
	})
}

// echoConnections echoes on each connection until the listener is closed.
func echoConnections(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c) // the other side sees what is missing
		c.Close()
	}
}

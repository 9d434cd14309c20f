package e2e

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// checkRedis drives redis with its own client and its own load generator.
func checkRedis(t *testing.T, r *rig, addr netip.AddrPort) {
	cli := func(args ...string) string {
		return strings.TrimSpace(r.client("redis-cli", append(hostPort(addr), args...)...))
	}
	require.Equal(t, "PONG", cli("ping"))
	require.Equal(t, "OK", cli("set", "key", "a value"))
	require.Equal(t, "a value", cli("get", "key"))
	require.Contains(t, cli("info", "server"), "redis_version")

	const requests = 10000
	out := r.client("redis-benchmark", append(hostPort(addr), "-n", strconv.Itoa(requests), "-c", "50", "-t", "set,get,incr", "--csv")...)
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 4, "header and three tests: %s", out)
	// redis-benchmark itself counts the last: each INCR of each connection has been done once.
	require.Equal(t, strconv.Itoa(requests), cli("get", "counter:__rand_int__"))
	require.Equal(t, "OK", cli("flushall"))
}

func hostPort(addr netip.AddrPort) []string {
	return []string{"-h", addr.Addr().String(), "-p", strconv.Itoa(int(addr.Port()))}
}

// resp is a connection to redis that pipelines (RESP2, redis.io/topics/protocol).
type resp struct {
	w *bufio.Writer
	r *bufio.Reader
}

func newRESP(c net.Conn) *resp {
	return &resp{w: bufio.NewWriterSize(c, 64<<10), r: bufio.NewReaderSize(c, 64<<10)}
}

// send queues a command.
func (c *resp) send(args ...string) error {
	fmt.Fprintf(c.w, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(c.w, "$%d\r\n%s\r\n", len(a), a)
	}
	return nil
}

// flush sends what is queued.
func (c *resp) flush() error { return c.w.Flush() }

// receive reads one reply: the text of a simple or bulk string, or an error.
func (c *resp) receive() (string, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", fmt.Errorf("empty reply")
	}
	switch line[0] {
	case '+', ':':
		return line[1:], nil
	case '$':
		return c.bulk(line[1:])
	}
	return "", fmt.Errorf("reply %q", line)
}

func (c *resp) bulk(size string) (string, error) {
	n, err := strconv.Atoi(size)
	if err != nil || n < 0 {
		return "", fmt.Errorf("bulk string of length %q", size)
	}
	b := make([]byte, n+2)
	_, err = io.ReadFull(c.r, b)
	return string(b[:max(n, 0)]), err
}

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// memcache speaks memcached's text protocol.
type memcache struct {
	net.Conn
	r *bufio.Reader
}

// command sends a line, with a block of data if there is one, and returns the
// first line of the answer.
func (m *memcache) command(line string, data []byte) (string, error) {
	msg := append([]byte(line), "\r\n"...)
	if data != nil {
		msg = append(append(msg, data...), "\r\n"...)
	}
	if _, err := m.Write(msg); err != nil {
		return "", err
	}
	return m.line()
}

func (m *memcache) line() (string, error) {
	s, err := m.r.ReadString('\n')
	return strings.TrimRight(s, "\r\n"), err
}

func (m *memcache) get(key string) ([]byte, error) {
	head, err := m.command("get "+key, nil)
	if err != nil {
		return nil, err
	}
	var flags, size int
	if _, err := fmt.Sscanf(head, "VALUE "+key+" %d %d", &flags, &size); err != nil {
		return nil, fmt.Errorf("get %s: %q: %w", key, head, err)
	}
	data := make([]byte, size+2)
	if _, err := io.ReadFull(m.r, data); err != nil {
		return nil, err
	}
	end, err := m.line()
	if err == nil && end != "END" {
		err = fmt.Errorf("get %s: ends with %q", key, end)
	}
	return data[:size], err
}

// checkMemcached stores and reads values of all magnitudes, up to the largest item.
func checkMemcached(t *testing.T, r *rig, addr netip.AddrPort) {
	c := r.mustDial(addr, time.Minute)
	m := &memcache{Conn: c, r: bufio.NewReader(c)}
	values := make(map[string][]byte)
	for n := range 1000 {
		values[fmt.Sprintf("key-%d", n)] = pattern(byte(n), n*7)
	}
	values["large"] = pattern(1, 1000<<10)
	for key, value := range values {
		got, err := m.command(fmt.Sprintf("set %s 0 0 %d", key, len(value)), value)
		require.NoError(t, err)
		require.Equal(t, "STORED", got)
	}
	for key, value := range values {
		got, err := m.get(key)
		require.NoError(t, err)
		require.Equal(t, value, got, key)
	}
	checkCounters(t, m)
}

func checkCounters(t *testing.T, m *memcache) {
	for _, step := range [][3]string{
		{"set n 0 0 2", "41", "STORED"}, {"incr n 1", "", "42"}, {"decr n 2", "", "40"},
		{"delete n", "", "DELETED"}, {"delete n", "", "NOT_FOUND"}, {"nonsense", "", "ERROR"},
	} {
		var data []byte
		if step[1] != "" {
			data = []byte(step[1])
		}
		got, err := m.command(step[0], data)
		require.NoError(t, err)
		require.Equal(t, step[2], got, step[0])
	}
}

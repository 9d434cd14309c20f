package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

// TestStrace expects a line for the program's system calls.
func TestStrace(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		stdout, stderr, code := run(t, isolated(engine, "--strace"), "cat", "/etc/hostname")
		require.Zero(t, code)
		require.NotEmpty(t, stdout)
		for _, call := range []string{"openat(", "/etc/hostname", "write(", "exit_group("} {
			require.True(t, strings.Contains(stderr, call), "%s is missing", call)
		}
	})
}

// TestLogJSON expects every line of the log to be JSON.
func TestLogJSON(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		_, stderr, code := run(t, isolated(engine, "--log", "json", "--log-level", "debug", "--strace"), "true")
		require.Zero(t, code)
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		require.Greater(t, len(lines), 1)
		for _, line := range lines {
			require.True(t, json.Valid([]byte(line)), line)
		}
	})
}

// TestStatsText expects the text form to carry the same names as JSON.
func TestStatsText(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		_, stderr, code := run(t, isolated(engine, "--stats"), "sh", "-c", "exit 3")
		require.Equal(t, 3, code)
		require.Regexp(t, `(?m)^exit_code +3$`, stderr)
		require.Regexp(t, `(?m)^syscalls +[1-9]\d*$`, stderr)
		require.Regexp(t, `(?m)^mode +none$`, stderr)
		require.Regexp(t, `(?m)^engine +`+engine+`$`, stderr)
		require.Regexp(t, `(?m)^engine_reason +asked for$`, stderr)
		require.Regexp(t, `(?m)^host_calls +[1-9]\d*$`, stderr)
	})
}

// TestPcap reads what --pcap wrote: an exchange of TCP segments in whole frames.
func TestPcap(t *testing.T) {
	matrix(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		file := filepath.Join(t.TempDir(), "capture.pcap")
		i := r.start([]string{"--pcap", file}, guest, "http", ":8080")
		addr := netip.AddrPortFrom(addr4, 8080)
		r.awaitPort(i, addr)
		download(t, r, addr, 1<<20)
		i.terminate(143)
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		in, out := tcpBytes(t, parsePcap(t, data))
		require.NotZero(t, in, "no TCP segment towards the instance")
		require.Greater(t, out, 1<<20, "TCP bytes from the instance")
	})
}

// parsePcap returns the frames of a capture file (draft-ietf-opsawg-pcap).
func parsePcap(t *testing.T, data []byte) (frames [][]byte) {
	require.Greater(t, len(data), 24)
	order := binary.ByteOrder(binary.LittleEndian)
	if magic := order.Uint32(data); magic != 0xa1b2c3d4 && magic != 0xa1b23c4d {
		order = binary.BigEndian
	}
	require.Contains(t, []uint32{0xa1b2c3d4, 0xa1b23c4d}, order.Uint32(data), "magic number")
	require.Equal(t, uint16(2), order.Uint16(data[4:]), "major version")
	require.Equal(t, uint32(1), order.Uint32(data[20:]), "link type is Ethernet")
	for data = data[24:]; len(data) > 0; {
		require.GreaterOrEqual(t, len(data), 16, "record header")
		captured, length := order.Uint32(data[8:]), order.Uint32(data[12:])
		require.LessOrEqual(t, captured, length)
		require.LessOrEqual(t, int(captured), len(data)-16, "record")
		frames = append(frames, data[16:16+captured])
		data = data[16+captured:]
	}
	return frames
}

// tcpBytes counts payload bytes of TCP over IPv4 to and from the instance.
func tcpBytes(t *testing.T, frames [][]byte) (in, out int) {
	const etherLen, ipv4Len = 14, 20
	us := addr4.AsSlice()
	for _, f := range frames {
		require.GreaterOrEqual(t, len(f), etherLen)
		if len(f) < etherLen+ipv4Len || binary.BigEndian.Uint16(f[12:]) != 0x0800 || f[etherLen+9] != 6 {
			continue
		}
		if bytes.Equal(f[26:30], us) {
			out += len(f) - etherLen - ipv4Len
		} else if bytes.Equal(f[30:34], us) {
			in += len(f) - etherLen - ipv4Len
		}
	}
	return in, out
}

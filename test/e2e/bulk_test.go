package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/internal/lab"
)

const bulkBytes = 200 << 20

// TestBulk sends 200 MB each way, first one way at a time, then both at once.
func TestBulk(t *testing.T) {
	skipLong(t)
	matrix(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{})
		i, addr := r.startServer(t, "go")
		down := func() { download(t, r, addr, bulkBytes) }
		up := func() { checkUpload(t, r.http(), addr, bulkBytes) }
		down()
		up()
		var both sync.WaitGroup
		both.Go(down)
		both.Go(up)
		both.Wait()
		i.terminate(143)
		i.checkStats()
	})
}

// download fetches n bytes from guest http and compares their hash.
func download(t *testing.T, r *rig, addr netip.AddrPort, n int64) {
	const seed = 7
	checkBody(t, r.http(), url(addr, fmt.Sprintf("data?seed=%d&n=%d", seed, n)), hashOf(seed, n), n)
}

// TestJumbo sends data at the largest MTU that the driver takes.
func TestJumbo(t *testing.T) {
	matrix(t, func(t *testing.T, v variant) {
		const mtu, n = 9000, 20 << 20
		r := newRig(t, v, lab.Options{MTU: mtu})
		i := r.start([]string{"--mtu", strconv.Itoa(mtu)}, guest, "http", ":8080")
		addr := netip.AddrPortFrom(addr4, 8080)
		r.awaitPort(i, addr)
		download(t, r, addr, n)
		checkUpload(t, r.http(), addr, n)
		i.terminate(143)
	})
}

// TestQueues uses a NIC with two queues.
func TestQueues(t *testing.T) {
	matrix(t, func(t *testing.T, v variant) {
		r := newRig(t, v, lab.Options{Queues: 2})
		i, addr := r.startServer(t, "redis")
		checkRedis(t, r, addr)
		i.terminate(0)
		i.checkStats()
	})
}

// TestIperf runs iperf3 both ways and checks what arrived. The receiver keeps it
// in a file; sending a file is no check, for iperf3 3.12 itself mixes it up when
// the socket takes a part of a block.
func TestIperf(t *testing.T) {
	matrix(t, func(t *testing.T, v variant) {
		for _, direction := range []string{"in", "out"} {
			t.Run(direction, func(t *testing.T) { iperf(t, v, direction) })
		}
	})
}

// iperf runs a server in an instance and the client outside. Data flows into
// the instance, or out of it with -R.
func iperf(t *testing.T, v variant, direction string) {
	const size = 50 << 20
	r := newRig(t, v, lab.Options{})
	dir := workDir(t)
	sink := filepath.Join(dir, "sink")
	inside := []string{need(t, "iperf3"), "-s", "-1", "--forceflush"}
	outside := []string{"-c", addr4.String(), "-n", strconv.Itoa(size), "--repeating-payload", "-J"}
	if direction == "in" {
		inside = append(inside, "-F", sink)
	} else {
		outside = append(outside, "-R", "-F", sink)
	}
	i := r.start([]string{"--rw", dir}, inside...)
	i.await("Server listening")
	out := r.client("iperf3", outside...)
	require.Zero(t, i.exit())
	var summary struct {
		End struct {
			Received struct{ Bytes int64 } `json:"sum_received"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(out), &summary), out)
	data, err := os.ReadFile(sink)
	require.NoError(t, err)
	require.Greater(t, len(data), size/2) // what is under way at the end is not counted
	// iperf3's threads end its count and its file at the end one block apart now and then.
	require.InDelta(t, summary.End.Received.Bytes, len(data), 128<<10, "bytes that iperf3 counted")
	requirePayload(t, data)
}

// requirePayload checks a stream of iperf3's repeating payload: blocks of the
// digits 0 to 9 again and again, cut off where the socket took a part.
func requirePayload(t *testing.T, data []byte) {
	t.Helper()
	next := byte('0')
	for n, b := range data {
		if b != next && b != '0' {
			t.Fatalf("byte %d of %d is %q, want %q or the begin of a block", n, len(data), b, next)
		}
		if next = b + 1; next > '9' {
			next = '0'
		}
	}
}

// requireSameFile compares the hash of a file's content.
func requireSameFile(t *testing.T, path, hash, what string) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	got, n, err := hashAll(f)
	require.NoError(t, err)
	require.Equalf(t, hash, got, "%s: %d bytes", what, n)
}

package e2e

import (
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

// TestIperf sends a file through iperf3 each way and compares it.
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
	source := writeFile(t, dir, "source", pattern(3, size))
	sink := filepath.Join(dir, "sink")
	inside, outside, reverse := sink, source, []string(nil)
	if direction == "out" {
		inside, outside, reverse = source, sink, []string{"-R"}
	}
	i := r.start([]string{"--rw", dir}, need(t, "iperf3"), "-s", "-1", "-F", inside)
	i.await("Server listening")
	r.client("iperf3", append([]string{"-c", addr4.String(), "-n", strconv.Itoa(size), "-F", outside}, reverse...)...)
	require.Zero(t, i.exit())
	requireSameFile(t, sink, hashOf(3, size), "what iperf3 wrote")
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

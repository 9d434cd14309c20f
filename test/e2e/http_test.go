package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// siteSizes are the sizes of the files that static servers serve.
var siteSizes = []int{0, 1, 100, 1447, 1448, 1449, 65536, 1 << 20, 10 << 20}

// writeSite writes one file of each size into dir.
func writeSite(t *testing.T, dir string) {
	for _, n := range siteSizes {
		writeFile(t, dir, "file-"+strconv.Itoa(n), pattern(byte(n), n))
	}
}

func url(addr netip.AddrPort, path string) string { return fmt.Sprintf("http://%s/%s", addr, path) }

// checkFiles fetches each file with curl and with keep-alive connections of Go's client.
func checkFiles(t *testing.T, r *rig, addr netip.AddrPort) {
	got := filepath.Join(t.TempDir(), "got")
	client := r.http()
	for _, n := range siteSizes {
		u := url(addr, "file-"+strconv.Itoa(n))
		r.client("curl", "--fail", "--silent", "--show-error", "--globoff", "-o", got, u)
		requireSameFile(t, got, hashOf(byte(n), int64(n)), u)
		checkBody(t, client, u, hashOf(byte(n), int64(n)), int64(n))
	}
	checkParallel(t, client, url(addr, "file-65536"), hashOf(0, 65536), 65536)
	resp, err := client.Get(url(addr, "missing"))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusNotFound, resp.StatusCode)
}

// checkBody fetches u and compares size and hash.
func checkBody(t *testing.T, client *http.Client, u, hash string, size int64) {
	t.Helper()
	require.NoError(t, fetch(client, u, hash, size))
}

func fetch(client *http.Client, u, hash string, size int64) error {
	resp, err := client.Get(u)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, n, err := hashAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s after %d bytes: %w", u, n, err)
	}
	if resp.StatusCode != http.StatusOK || n != size || got != hash {
		return fmt.Errorf("%s: %s, %d bytes of %d, hash %s, want %s", u, resp.Status, n, size, got, hash)
	}
	return nil
}

// checkParallel fetches u from several goroutines at once.
func checkParallel(t *testing.T, client *http.Client, u, hash string, size int64) {
	t.Helper()
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		wg.Go(func() {
			for range 8 {
				if err := fetch(client, u, hash, size); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
}

// checkHasher drives the service of guest http.
func checkHasher(t *testing.T, r *rig, addr netip.AddrPort) {
	require.Equal(t, "hello, world\n", r.client("curl", "--fail", "--silent", "--show-error", url(addr, "hello")))
	client := r.http()
	for _, n := range []int64{0, 1, 1448, 65536, 5 << 20} {
		checkUpload(t, client, addr, n)
	}
}

// checkUpload posts n bytes and compares the hash that comes back.
func checkUpload(t *testing.T, client *http.Client, addr netip.AddrPort, n int64) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url(addr, "sha256"), io.LimitReader(stream(byte(n)), n))
	require.NoError(t, err)
	req.ContentLength = n
	if n == 0 {
		req.Body = http.NoBody
	}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%s %d", hashOf(byte(n), n), n), strings.TrimSpace(string(got)))
}

func compileJava(t *testing.T, dir, file string) {
	t.Helper()
	out, err := exec.Command(need(t, "javac"), "-d", dir, file).CombinedOutput()
	require.NoErrorf(t, err, "javac: %s", out)
}

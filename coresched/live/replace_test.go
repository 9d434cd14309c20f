package live

import (
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// servers is how many threads answer requests.
const servers = 4

// answer is a program whose threads answer requests, datagrams of descriptor 3,
// each after computing a little. It prints their numbers first.
func answer() {
	for range servers {
		go func() {
			runtime.LockOSThread()
			_, _ = os.Stdout.WriteString(strconv.Itoa(unix.Gettid()) + "\n")
			var b [8]byte
			for {
				n, err := unix.Read(3, b[:])
				if err != nil || n == 0 {
					return
				}
				for x := range 50_000 {
					runtime.KeepAlive(x)
				}
				_, _ = unix.Write(3, b[:n])
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func startServers(t *testing.T) (requests *os.File, tids []int) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	requests, theirs := os.NewFile(uintptr(pair[0]), "requests"), os.NewFile(uintptr(pair[1]), "requests")
	t.Cleanup(func() { _ = requests.Close() })
	defer theirs.Close()
	_, _, out := converse(t, []*os.File{theirs}, role("server")...)
	for range servers {
		require.True(t, out.Scan())
		tid, err := strconv.Atoi(out.Text())
		require.NoError(t, err)
		tids = append(tids, tid)
	}
	return requests, tids
}

// load keeps requests under way until stop is closed, then waits for all answers,
// and sends how many there were.
func load(requests *os.File, stop <-chan struct{}) <-chan int {
	answered := make(chan int, 1)
	go func() {
		defer close(answered)
		got := 0
		b := make([]byte, 8)
		for under := 0; ; {
			select {
			case <-stop:
				if under == 0 {
					answered <- got
					return
				}
			default:
				for ; under < 2*servers; under++ {
					if _, err := requests.Write([]byte("request")); err != nil {
						return
					}
				}
			}
			if _, err := requests.Read(b); err != nil {
				return
			}
			got++
			under--
		}
	}()
	return answered
}

// Live replacement under load loses no request.
func TestReplaceUnderLoad(t *testing.T) {
	a := newActuator(t)
	requests, tids := startServers(t)
	require.NoError(t, a.Create("e", oneCore(t), 0))
	require.NoError(t, a.Push("e", tids))
	_, err := a.SetPolicy("e", "fifo-central", nil)
	require.NoError(t, err)
	stop := make(chan struct{})
	answered := load(requests, stop)
	var dark []time.Duration
	for range 10 {
		for _, name := range []string{"shinjuku", "fifo-central"} {
			from := enclaveOf(t, a, "e").Handoffs
			eventually(t, "threads run by the policy", func() bool { return enclaveOf(t, a, "e").Handoffs > from+20 })
			d, err := a.SetPolicy("e", name, nil)
			require.NoError(t, err)
			dark = append(dark, d)
		}
	}
	close(stop)
	select {
	case n, ok := <-answered:
		require.True(t, ok)
		slices.Sort(dark)
		t.Logf("%d requests answered, all; blackout p50 %v, most %v", n, dark[len(dark)/2], dark[len(dark)-1])
		require.Positive(t, n)
	case <-time.After(time.Minute):
		require.Fail(t, "requests were lost")
	}
	require.Zero(t, enclaveOf(t, a, "e").Crashes)
}

// An enclave may be destroyed while a policy for it starts.
func TestDestroyedMeanwhile(t *testing.T) {
	a := newActuator(t)
	for i := range 5 {
		require.NoError(t, a.Create("e", oneCore(t), 0))
		said := make(chan error)
		go func() {
			_, err := a.SetPolicy("e", "sol", nil)
			said <- err
		}()
		eventually(t, "it starts", func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.enclaves["e"].starting > 0 || a.enclaves["e"].driver != nil
		})
		time.Sleep(time.Duration(i) * 5 * time.Millisecond) // another moment each time
		require.NoError(t, a.Destroy("e"))
		if err := <-said; err != nil {
			require.ErrorIs(t, err, ErrEnclave)
		}
	}
}

package direct_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"junction/direct"
	"junction/direct/afxdp"
	"junction/direct/internal/nic"
)

// take makes a NIC ready for users in other processes.
func take(t testing.TB, queues int) *afxdp.NIC {
	t.Helper()
	l, err := nic.Find(nicName, nil)
	require.NoError(t, err)
	n, err := afxdp.Take(context.Background(), l, nic.Options{NIC: nicName, Queues: queues}, afxdp.PlainProgram)
	require.NoError(t, err)
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// dup returns descriptors of its own for each user.
func dup(t testing.TB, files []int) (dups []int) {
	t.Helper()
	for _, f := range files {
		fd, err := unix.FcntlInt(uintptr(f), unix.F_DUPFD_CLOEXEC, 0)
		require.NoError(t, err)
		dups = append(dups, fd)
	}
	return dups
}

func adopt(t testing.TB, n *afxdp.NIC) direct.Device {
	t.Helper()
	e, files := n.Export()
	d, err := direct.Adopt(e, dup(t, files), direct.AdoptOptions{Watch: true})
	require.NoError(t, err)
	return d
}

// number is a test frame with a number in it.
func number(dst, src []byte, n uint64) []byte {
	f := frame(dst, src, 100, 0)
	binary.BigEndian.PutUint64(f[14:], n)
	return f
}

func numberOf(f []byte) uint64 { return binary.BigEndian.Uint64(f[14:]) }

// TestAdoptAfterUsersEnds: a thousand users one after the other, each of which
// ends with frames in hand in every state. What one had not released the next one
// receives, what one had published is sent, and at the end the queue still has all
// of its chunks: a full ring of frames arrives, and as many are sent.
func TestAdoptAfterUsersEnds(t *testing.T) {
	enter(t)
	mac, peer := wire(t, 1500, 1)
	n := take(t, 1)
	s := newStation(t, peerName)
	rng := rand.New(rand.NewPCG(1, 2))
	var sent, expected, published uint64
	seen := map[uint64]bool{}
	drain := make([]byte, 2048)
	for range 1000 {
		d := adopt(t, n)
		var held []uint64 // received and not released
		q := d.Queues()[0]
		batch := make([][]byte, rng.IntN(20)+1)
		for range rng.IntN(4) {
			for range rng.IntN(12) {
				s.send(number(mac.HardwareAddr, peer.HardwareAddr, sent))
				sent++
			}
			got, err := q.Receive(batch)
			require.NoError(t, err)
			for _, f := range batch[:got] {
				if binary.BigEndian.Uint16(f[direct.VnetHdrLen+12:]) != etherTest {
					continue
				}
				i := numberOf(f[direct.VnetHdrLen:])
				require.False(t, seen[i], "frame %d came twice", i)
				require.GreaterOrEqual(t, i, expected, "frames out of order")
				expected, seen[i], held = i+1, true, append(held, i)
			}
			if rng.IntN(2) == 0 {
				q.Release()
				held = nil
			}
			for range rng.IntN(8) { // flushed or not
				require.NoError(t, q.Transmit(nil, [][]byte{number(peer.HardwareAddr, mac.HardwareAddr, published)}))
				published++
			}
			if rng.IntN(2) == 0 {
				require.NoError(t, q.Flush())
			}
		}
		require.NoError(t, d.Close()) // as the kernel does after a SIGKILL
		for _, i := range slices.Backward(held) {
			delete(seen, i)
			expected = i
		}
	}
	require.NoError(t, unix.SetNonblock(s.fd, true))
	for {
		if _, err := unix.Read(s.fd, drain); err != nil {
			break
		}
	}
	require.NoError(t, unix.SetNonblock(s.fd, false))
	d := adopt(t, n)
	defer d.Close()
	q := d.Queues()[0]
	for got, batch := 1, make([][]byte, 64); got > 0; {
		var err error
		got, err = q.Receive(batch)
		require.NoError(t, err)
		q.Release()
	}
	for _, g := range exported(n) {
		s.fill(q, int(g.RXChunks), number(mac.HardwareAddr, peer.HardwareAddr, 0))
		for i := range uint64(g.TXChunks) {
			require.NoError(t, q.Transmit(nil, [][]byte{number(peer.HardwareAddr, mac.HardwareAddr, i)}), "chunk %d of %d is lost", i, g.TXChunks)
		}
		require.ErrorIs(t, q.Transmit(nil, [][]byte{drain[:100]}), direct.ErrFull)
	}
	st := d.Stats()
	require.Zero(t, st.BadIndices)
	require.Zero(t, st.Drops["rx_fill_ring_empty"]+st.Drops["rx_invalid_desc"]+st.Drops["tx_invalid_desc"], st)
	t.Log(st)
}

// fill sends until the queue has received n frames, none of which is released: it
// has so many chunks.
func (s *station) fill(q direct.Queue, n int, f []byte) {
	s.t.Helper()
	batch := make([][]byte, 64)
	for got, end := 0, time.Now().Add(time.Minute); got < n; {
		require.True(s.t, time.Now().Before(end), "%d of %d chunks are there", got, n)
		s.send(f)
		k, err := q.Receive(batch)
		require.NoError(s.t, err)
		got += k // frames of the kernel's own take chunks, too
	}
	q.Release()
}

func exported(n *afxdp.NIC) []afxdp.Geometry {
	e, _ := n.Export()
	return e.Queues
}

const adopterEnv = "JUNCTION_TEST_ADOPTER"

// TestAdopterProcess is no test: it is the user that TestAdoptWithoutPrivileges
// starts. It echoes frames until it is killed.
func TestAdopterProcess(t *testing.T) {
	text := os.Getenv(adopterEnv)
	if text == "" {
		t.Skip("only as the process that TestAdoptWithoutPrivileges starts")
	}
	var e direct.Export
	require.NoError(t, json.Unmarshal([]byte(text), &e))
	require.NotZero(t, unix.Geteuid())
	_, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0)
	require.ErrorIs(t, err, unix.EPERM)
	d, err := direct.Adopt(e, []int{3, 4}, direct.AdoptOptions{})
	require.NoError(t, err)
	q := d.Queues()[0]
	for batch := make([][]byte, 64); ; {
		got, err := q.Receive(batch)
		require.NoError(t, err)
		for _, f := range batch[:got] {
			f = f[direct.VnetHdrLen:]
			if binary.BigEndian.Uint16(f[12:]) == etherTest {
				transmit(t, q, f[6:12], f[:6], f[12:])
			}
		}
		q.Release()
		require.NoError(t, q.Flush())
		if got == 0 {
			require.NoError(t, q.Wait())
		}
	}
}

// TestAdoptWithoutPrivileges: a process of nobody's, in a network namespace of
// its own, uses a queue that this one made, and is killed; the next one goes on
// with the frames that came meanwhile.
func TestAdoptWithoutPrivileges(t *testing.T) {
	enter(t)
	mac, peer := wire(t, 1500, 1)
	n := take(t, 1)
	s := newStation(t, peerName)
	e, files := n.Export()
	text, err := json.Marshal(e)
	require.NoError(t, err)
	buf := make([]byte, 2048)
	const waiting = 20
	require.NoError(t, unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60})) // a process starts
	for round := range uint64(5) {
		for i := range uint64(waiting) { // nobody is there yet but in the first round the ring is empty too
			s.send(number(mac.HardwareAddr, peer.HardwareAddr, round*100+i))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run", "^TestAdopterProcess$")
		cmd.Env = append(os.Environ(), adopterEnv+"="+string(text))
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(dup(t, files[:1])[0]), "socket"), os.NewFile(uintptr(dup(t, files[1:])[0]), "umem")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Cloneflags: unix.CLONE_NEWNET}
		cmd.Stderr, cmd.Stdout = os.Stderr, os.Stderr
		require.NoError(t, cmd.Start())
		for _, f := range cmd.ExtraFiles {
			require.NoError(t, f.Close())
		}
		if round > 0 {
			for i := range uint64(waiting) {
				require.Equal(t, round*100+i, s.receiveNumber(buf), "round %d", round)
			}
		}
		for i := range uint64(10) {
			s.sendUntilEchoed(number(mac.HardwareAddr, peer.HardwareAddr, repeated+i), buf)
		}
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		cancel()
		s.drain(buf)
	}
}

// repeated is the least number of frames that are sent again and again, and whose
// echoes may come late.
const repeated = 1_000_000

// receiveNumber returns the next number that is sent once.
func (s *station) receiveNumber(buf []byte) uint64 {
	s.t.Helper()
	for {
		if n := numberOf(s.receive(buf)); n < repeated {
			return n
		}
	}
}

// sendUntilEchoed sends f again and again until it comes back: the echo may not
// have begun yet.
func (s *station) sendUntilEchoed(f, buf []byte) {
	s.t.Helper()
	poll := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		s.send(f)
		for {
			n, err := unix.Poll(poll, 50)
			if err != nil || n == 0 {
				break
			}
			if numberOf(s.receive(buf)) == numberOf(f) {
				return
			}
		}
	}
	require.Fail(s.t, "no echo")
}

// drain takes what has come and may still come.
func (s *station) drain(buf []byte) {
	poll := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
	for {
		if n, err := unix.Poll(poll, 20); err != nil || n == 0 {
			return
		}
		s.receive(buf)
	}
}

// TestAdoptRefuses what is no queue, and closes it.
func TestAdoptRefuses(t *testing.T) {
	enter(t)
	wire(t, 1500, 1)
	n := take(t, 1)
	e, files := n.Export()
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(null)
	blocking, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(blocking)
	small, err := unix.MemfdCreate("small", unix.MFD_ALLOW_SEALING)
	require.NoError(t, err)
	defer unix.Close(small)
	change := func(f func(*direct.Export)) direct.Export {
		c := e
		c.Queues = append([]afxdp.Geometry(nil), e.Queues...)
		f(&c)
		return c
	}
	for name, c := range map[string]struct {
		e     direct.Export
		files []int
	}{
		"no files":         {e, nil},
		"one file":         {e, files[:1]},
		"too many":         {e, append(files[:2:2], null)},
		"no queues":        {change(func(e *direct.Export) { e.Queues = nil }), nil},
		"not a socket":     {e, []int{null, files[1]}},
		"not a umem":       {e, []int{files[0], null}},
		"unsealed umem":    {e, []int{files[0], small}},
		"swapped":          {e, []int{files[1], files[0]}},
		"chunk size":       {change(func(e *direct.Export) { e.Queues[0].Chunk = 1 << 20 }), files},
		"larger than umem": {change(func(e *direct.Export) { e.Queues[0].RXChunks *= 2 }), files},
		"no chunks":        {change(func(e *direct.Export) { e.Queues[0].TXChunks = 0 }), files},
		"rings' sizes": {change(func(e *direct.Export) {
			e.Queues[0].RXChunks, e.Queues[0].TXChunks = e.Queues[0].TXChunks, e.Queues[0].RXChunks
		}), files},
		"MTU": {change(func(e *direct.Export) { e.MTU = 1 << 30 }), files},
		"MAC": {change(func(e *direct.Export) { e.MAC = "x" }), files},

		"no outlet":         {change(func(e *direct.Export) { e.Outlet = "all" }), files},
		"not an outlet":     {change(func(e *direct.Export) { e.Outlet = "all" }), append(files[:2:2], null)},
		"unknown outlet":    {change(func(e *direct.Export) { e.Outlet = "some" }), append(files[:2:2], null)},
		"outlet not wanted": {e, append(files[:2:2], blocking)},
		"blocking outlet":   {change(func(e *direct.Export) { e.Outlet = "segments" }), append(files[:2:2], blocking)},
	} {
		t.Run(name, func(t *testing.T) {
			before := openFiles(t)
			_, err := direct.Adopt(c.e, dup(t, c.files), direct.AdoptOptions{})
			require.Error(t, err)
			require.Equal(t, before, openFiles(t))
		})
	}
	d := adopt(t, n)
	require.NoError(t, d.Close())
}

func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

// TestAdoptedQueueOutlivesItsNIC: a user that watches is told that the NIC is gone.
func TestAdoptedQueueOutlivesItsNIC(t *testing.T) {
	enter(t)
	wire(t, 1500, 1)
	n := take(t, 1)
	d := adopt(t, n)
	defer d.Close()
	l, err := netlink.LinkByName(nicName)
	require.NoError(t, err)
	require.NoError(t, netlink.LinkDel(l))
	for { // the kernel's own frames come first
		if err = d.Queues()[0].Wait(); err != nil {
			break
		}
		_, _ = d.Queues()[0].Receive(make([][]byte, 64))
		d.Queues()[0].Release()
	}
	require.ErrorIs(t, err, direct.ErrNoNIC)
}

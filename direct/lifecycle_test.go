package direct_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"junction/direct"
)

// childDriver makes this test binary a process that holds nicName until it is
// killed; TestKilledHolder uses it.
const childDriver = "JUNCTION_DIRECT_TEST_HOLD"

func TestMain(m *testing.M) {
	if driver := os.Getenv(childDriver); driver != "" {
		hold(driver)
	}
	goleak.VerifyTestMain(m)
}

func hold(driver string) {
	d, err := direct.Open(context.Background(), direct.Options{NIC: nicName, Driver: driver, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("holding")
	fmt.Println(waitUntilError(d.Queues()[0]))
	os.Exit(2)
}

// TestKilledHolder: after kill -9 the NIC is as before, and can be opened.
func TestKilledHolder(t *testing.T) {
	for _, next := range drivers {
		eachDriver(t, 1500, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
			for i := range 3 {
				killHolder(t, driver, i == 0)
				d := open(t, direct.Options{NIC: nicName, Driver: next})
				require.Equal(t, next, d.Mode().Driver)
				echo(t, d.Queues()[0], newStation(t, peerName), mac, peer, 100)
				require.NoError(t, d.Close())
				requireNothingLeft(t)
			}
		})
	}
}

// killHolder starts a process that holds the NIC and kills it.
func killHolder(t *testing.T, driver string, check bool) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childDriver+"="+driver)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start()) // inherits the thread's namespace
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "holding\n", line)
	if check { // which takes a second
		refused(t, direct.Options{NIC: nicName, Driver: driver}, direct.ErrInUse, fmt.Sprintf("pid %d", cmd.Process.Pid))
	}
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
}

// TestKilledTAPHolder: a TAP that outlives its killed holder can be opened at
// once, also by one who has waited for it.
func TestKilledTAPHolder(t *testing.T) {
	enter(t)
	persistentTAP(t, nicName)
	for range 5 {
		killHolder(t, "tap", false)
		require.NoError(t, open(t, direct.Options{NIC: nicName, Driver: "tap"}).Close())
	}
	for range 5 {
		d := open(t, direct.Options{NIC: nicName, Driver: "tap"})
		released := make(chan error)
		go func() { released <- d.Close() }() // while Open waits, or before
		require.NoError(t, open(t, direct.Options{NIC: nicName, Driver: "tap"}).Close())
		require.NoError(t, <-released)
	}
}

// requireNothingLeft: no XDP program, no macvtap (seen through what it does to
// the NIC: it is in a namespace of its own), not promiscuous. The kernel
// removes the namespace of a killed holder a moment later.
func requireNothingLeft(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) { // no event tells
		l, err := netlink.LinkByName(nicName)
		require.NoError(t, err)
		if l.Attrs().Promisc == 0 {
			break
		}
		require.True(t, time.Now().Before(deadline), "still promiscuous")
	}
	links, err := netlink.LinkList()
	require.NoError(t, err)
	for _, l := range links {
		require.NotEqual(t, "macvtap", l.Type())
		require.NotContains(t, l.Attrs().Name, "jtx", "an outlet is left")
		if l.Attrs().Name == nicName {
			require.Zero(t, allMulticast(t, l.Attrs().Index), "still receives all multicast")
			require.False(t, l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached, "an XDP program is left")
		}
	}
}

// TestCloseFreesEverything compares descriptors, threads' waits and links.
func TestCloseFreesEverything(t *testing.T) {
	eachDriver(t, 1500, 2, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		before := descriptors(t)
		for range 5 {
			d := open(t, direct.Options{NIC: nicName, Driver: driver, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7}})
			require.Equal(t, "02:00:00:00:00:07", d.MAC().String())
			require.NotZero(t, up(nil, nicName).Attrs().Promisc, "receives for any address")
			require.NoError(t, d.Close())
			require.NoError(t, d.Close(), "again")
			requireNothingLeft(t)
		}
		require.Equal(t, before, descriptors(t))
	})
}

func TestRefusalFreesEverything(t *testing.T) {
	enter(t)
	wire(t, 1500, 1)
	before := descriptors(t)
	for _, driver := range drivers {
		refused(t, direct.Options{NIC: nicName, Driver: driver, MTU: 9000}, direct.ErrMTU)
		refused(t, direct.Options{NIC: "lo", Driver: driver}, direct.ErrUnsupported)
	}
	refused(t, direct.Options{NIC: nicName, Driver: "afxdp", Queues: 8}, direct.ErrUnsupported)
	refused(t, direct.Options{NIC: "tap3", Driver: "tap", MTU: 66000}, direct.ErrMTU)
	require.Equal(t, before, descriptors(t))
	requireNothingLeft(t)
}

// descriptors returns what this process has open, without the numbers.
func descriptors(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err == nil && !strings.HasPrefix(to, "/proc/") {
			all = append(all, strings.TrimRight(to, "0123456789[]"))
		}
	}
	sort.Strings(all)
	return all
}

// TestCloseWhileWaiting ends both kinds of wait, and all later calls.
func TestCloseWhileWaiting(t *testing.T) {
	eachDriver(t, 1500, 2, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		d := open(t, direct.Options{NIC: nicName, Driver: driver, Queues: 2})
		var waiting sync.WaitGroup
		ended := make(chan error, 2)
		for _, q := range d.Queues() {
			waiting.Add(1)
			go func() {
				waiting.Done()
				ended <- waitUntilError(q)
			}()
		}
		waiting.Wait()
		require.NoError(t, d.Close())
		for range d.Queues() {
			require.ErrorIs(t, <-ended, net.ErrClosed)
		}
		q := d.Queues()[0]
		_, err := q.Receive(make([][]byte, 4))
		require.ErrorIs(t, err, net.ErrClosed)
		q.Release()
		q.Wake()
		require.ErrorIs(t, q.Wait(), net.ErrClosed)
		require.ErrorIs(t, q.TransmitWait(), net.ErrClosed)
		require.ErrorIs(t, q.Transmit(nil, [][]byte{make([]byte, 60)}), net.ErrClosed)
		require.NoError(t, q.Flush(), "nothing is queued")
	})
}

// waitUntilError waits, and throws away frames that come.
func waitUntilError(q direct.Queue) error {
	batch := make([][]byte, 8)
	for {
		if err := q.Wait(); err != nil {
			return err
		}
		if _, err := q.Receive(batch); err != nil {
			return err
		}
		q.Release()
	}
}

// TestCloseUnderLoad closes while both sides work, as often as it takes to meet
// them in every state.
func TestCloseUnderLoad(t *testing.T) {
	eachDriver(t, 1500, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		for range 10 {
			d := open(t, direct.Options{NIC: nicName, Driver: driver})
			q := d.Queues()[0]
			var work sync.WaitGroup
			work.Go(func() { receiveUntilClosed(t, q) })
			work.Go(func() { transmitUntilClosed(t, q, frame(peer, mac, 1000, 1)) })
			s := newStation(t, peerName)
			for i := range 100 {
				s.send(frame(mac, peer, 500, i))
			}
			require.NoError(t, d.Close())
			work.Wait()
			d.Stats()
		}
	})
}

func receiveUntilClosed(t *testing.T, q direct.Queue) {
	batch := make([][]byte, 32)
	sum := byte(0)
	for {
		n, err := q.Receive(batch)
		for _, f := range batch[:n] {
			for _, b := range f {
				sum += b // reads the memory
			}
		}
		q.Release()
		if err == nil && n == 0 {
			err = q.Wait()
		}
		if err != nil {
			requireClosed(t, err)
			return
		}
	}
}

func transmitUntilClosed(t *testing.T, q direct.Queue, f []byte) {
	parts := [][]byte{f}
	for {
		err := q.Transmit(nil, parts)
		if errors.Is(err, direct.ErrFull) {
			if err = q.Flush(); err == nil || errors.Is(err, direct.ErrFull) {
				err = q.TransmitWait()
			}
		}
		if err != nil {
			requireClosed(t, err)
			return
		}
	}
}

func requireClosed(t *testing.T, err error) {
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}

// TestWake ends the current or the next wait, of either side.
func TestWake(t *testing.T) {
	eachDriver(t, 1500, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		q := open(t, direct.Options{NIC: nicName, Driver: driver}).Queues()[0]
		q.Wake()
		require.NoError(t, q.Wait())
		done := make(chan error)
		for range 100 {
			go func() { done <- q.Wait() }()
			q.Wake()
			require.NoError(t, <-done)
		}
	})
}

// TestLinkDown: what was queued while the NIC was down goes out when it is up.
func TestLinkDown(t *testing.T) {
	enter(t)
	mac, peer := wire(t, 1500, 1)
	q := open(t, direct.Options{NIC: nicName, Driver: "afxdp"}).Queues()[0]
	s := newStation(t, peerName)
	link := up(t, nicName)
	require.NoError(t, netlink.LinkSetDown(link))
	f := func(i int) []byte { return frame(peer.HardwareAddr, mac.HardwareAddr, 90, i) }
	transmit(t, q, f(0))
	err := q.Flush()
	require.ErrorIs(t, err, unix.ENETDOWN)
	require.ErrorContains(t, err, nicName)
	n := 1
	for q.Transmit(nil, [][]byte{f(n)}) == nil {
		n++
	}
	done := make(chan error)
	go func() { done <- q.TransmitWait() }() // there is no room
	q.Wake()
	require.NoError(t, <-done)
	require.NoError(t, netlink.LinkSetUp(link))
	require.NoError(t, q.Flush())
	buf := make([]byte, 2048)
	require.Equal(t, f(0), s.receive(buf))
	require.Equal(t, f(1), s.receive(buf))
	echo(t, q, newStation(t, peerName), mac.HardwareAddr, peer.HardwareAddr, 100)
}

// TestMemoryIsUnmapped: closed queues leave no address space behind.
func TestMemoryIsUnmapped(t *testing.T) {
	eachDriver(t, 1500, 1, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		mapped := func() int {
			maps, err := os.ReadFile("/proc/self/maps")
			require.NoError(t, err)
			return addressSpace(string(maps))
		}
		before := mapped()
		for range 20 {
			d, err := direct.Open(context.Background(), direct.Options{NIC: nicName, Driver: driver})
			require.NoError(t, err) // not open, whose clean-up would hold d
			require.NoError(t, d.Close())
		}
		for mapped() > before+20<<20 { // the test's time limit ends it
			runtime.GC()
		}
	})
}

// addressSpace adds up /proc/PID/maps (proc(5)).
func addressSpace(maps string) (sum int) {
	for line := range strings.Lines(maps) {
		var from, to int
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err == nil && !strings.Contains(line, "---p") {
			sum += to - from
		}
	}
	return sum
}

// TestNICVanishes: a NIC that is deleted or moved away ends the wait.
func TestNICVanishes(t *testing.T) {
	eachDriver(t, 1500, 2, func(t *testing.T, driver string, mac, peer net.HardwareAddr) {
		d := open(t, direct.Options{NIC: nicName, Driver: driver, Queues: 2})
		ended := make(chan error, 2)
		for _, q := range d.Queues() {
			go func() {
				ended <- waitUntilError(q)
			}()
		}
		require.NoError(t, netlink.LinkDel(up(t, peerName)))
		for range d.Queues() {
			err := <-ended
			require.ErrorIs(t, err, direct.ErrNoNIC)
			require.ErrorContains(t, err, nicName)
		}
		q := d.Queues()[0]
		_ = q.Transmit(nil, [][]byte{make([]byte, 60)})
		_ = q.Flush()
		require.NoError(t, d.Close())
	})
}

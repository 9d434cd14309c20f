package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/internal/lab"
	"junction/internal/monitor/wire"
	"junction/ipc"
	"junction/ipc/control"
)

// offenderRig is a rig with a victim: redis, with connections from outside that
// compare every value, until the test ends.
type offenderRig struct {
	*rig
	replies *atomic.Uint64
	stop    func() // ends the load
	began   monitorStatus
	mac     net.HardwareAddr
}

func newOffenderRig(t *testing.T, flags ...string) *offenderRig {
	t.Helper()
	r := &offenderRig{rig: newRig(t, variant{engine: engines[0], driver: serverMode}, lab.Options{})}
	_, addr := r.startServer(t, "redis", append([]string{"--name", "victim"}, flags...)...)
	replies, stop := r.load(t, addr, 4)
	r.replies, r.stop = replies, sync.OnceFunc(stop)
	t.Cleanup(r.stop)
	r.began = r.status()
	var err error
	r.mac, err = r.Server.HardwareAddr(lab.ServerNIC)
	require.NoError(t, err)
	return r
}

// requireAlive checks that nobody died or hung, that the victim is served, and
// that no frame is lost without a name.
func (r *offenderRig) requireAlive(t *testing.T) {
	t.Helper()
	count := r.replies.Load()
	require.Eventually(t, func() bool { return r.replies.Load() > count+100 }, readyTimeout, time.Millisecond, "the victim is served")
	s := r.status()
	require.Equal(t, r.began.PID, s.PID, "the monitor")
	require.Equal(t, r.began.Server.PID, s.Server.PID, "the network server")
	require.Zero(t, s.Server.Restarts)
	r.checkAccounts()
}

// offence returns how often a kind has been counted for a name.
func (r *rig) offence(name, kind string) (n uint64) {
	var s struct {
		Offences []struct {
			Name  string `json:"name"`
			Kind  string `json:"kind"`
			Count uint64 `json:"count"`
		} `json:"offences"`
	}
	r.ctl(&s, "status")
	for _, o := range s.Offences {
		if o.Name == name && (kind == "" || o.Kind == kind) {
			n += o.Count
		}
	}
	return n
}

// rogueAddr is the dedicated address that rogues take.
var rogueAddr = netip.MustParseAddr("198.18.0.200")

// datagram is a UDP frame over IPv4 without checksums of UDP.
func datagram(src, dst net.HardwareAddr, from, to netip.AddrPort, payload []byte) []byte {
	be := binary.BigEndian
	b := append(append([]byte{}, dst...), src...)
	b = append(b, 8, 0, 0x45, 0)
	b = be.AppendUint16(b, uint16(28+len(payload)))
	b = append(b, 0, 0, 0, 0, 64, 17, 0, 0)
	f, d := from.Addr().As4(), to.Addr().As4()
	b = append(append(b, f[:]...), d[:]...)
	sum := uint32(0)
	for i := 14; i < 34; i += 2 {
		sum += uint32(be.Uint16(b[i:]))
	}
	be.PutUint16(b[24:], ^uint16(sum>>16+sum&0xffff))
	b = be.AppendUint16(b, from.Port())
	b = be.AppendUint16(b, to.Port())
	b = be.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// own is a frame that a rogue may send: to a port of its own address.
func (r *offenderRig) own(n int) []byte {
	return datagram(r.mac, r.mac, netip.AddrPortFrom(rogueAddr, 9), netip.AddrPortFrom(rogueAddr, 9), make([]byte, n))
}

// TestRogueRings: an instance that breaks the protocol of its rings is cut off
// and named by what it did; the network server, the monitor and others go on.
func TestRogueRings(t *testing.T) {
	r := newOffenderRig(t)
	for _, c := range []struct {
		kind string // "": any of them
		do   func(x *rogue)
	}{
		{"bad_producer_index", func(x *rogue) { x.send(r.own(100)); x.awaitTaken(); x.publish(^uint32(0)) }},
		{"bad_producer_index", func(x *rogue) { x.publish(uint32(x.o.Buffers) + 1) }},
		{"bad_length", func(x *rogue) { x.describe(5); x.publish(1) }},
		{"bad_length", func(x *rogue) { x.describe(1 << 31); x.publish(1) }},
		{"bad_chain", func(x *rogue) { x.describe(60000); x.publish(1) }},
		// Buffers given back twice are seen when the server needs room.
		{"bad_consumer_index", func(x *rogue) {
			x.setWord(ringToInstance+wordConsumer, uint32(x.o.Buffers)+77)
			x.flood(r.own(1000))
		}},
		{"", func(x *rogue) {
			rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
			x.awaitCutOff(func() {
				for range 1000 {
					x.scribble(rng)
				}
			})
		}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			x := r.rogue(t, "rogue", rogueAddr)
			before := r.offence("rogue", c.kind)
			c.do(x)
			x.awaitCutOff(func() {})
			require.Equal(t, before+1, r.offence("rogue", c.kind))
			r.requireAlive(t)
		})
	}
	require.Equal(t, uint64(1), r.offence("rogue", "bad_chain"))
}

// flood sends more of a frame than a ring holds, unless it is cut off meanwhile.
func (x *rogue) flood(f []byte) {
	for range x.o.Buffers {
		for x.full(len(f)) {
			if x.gone() {
				return
			}
			x.ring()
		}
		x.send(f)
	}
}

// awaitTaken waits until the server has taken all frames.
func (x *rogue) awaitTaken() {
	x.t.Helper()
	require.Eventually(x.t, func() bool { return x.word(ringToServer+wordConsumer) == x.producer }, readyTimeout, time.Millisecond)
}

// TestRogueChanges: descriptors and frames that change after they have been
// checked, by the thousand, and holes in the rings' memory, hurt nobody else.
func TestRogueChanges(t *testing.T) {
	r := newOffenderRig(t)
	x := r.rogue(t, "rogue", rogueAddr)
	require.ErrorIs(t, unix.Ftruncate(x.fds[0], 0), unix.EPERM, "what would make the server die of SIGBUS")
	_, err := unix.FcntlInt(uintptr(x.fds[0]), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
	require.ErrorIs(t, err, unix.EPERM)

	// All descriptors and buffers change between two frames, one right and one
	// from another's address, of other lengths.
	var stop atomic.Bool
	var flipper sync.WaitGroup
	good := append(make([]byte, ipc.VnetHdrLen), r.own(1000)...)
	bad := append(make([]byte, ipc.VnetHdrLen), datagram(r.mac, r.mac, netip.AddrPortFrom(addr4, 6379), netip.AddrPortFrom(addr4, 6379), make([]byte, 30))...)
	at := ringDescs + 4*x.o.Buffers
	data := x.mem[ringDescs+8*x.o.Buffers+x.o.Buffers*x.o.BufferSize:]
	flipper.Go(func() {
		for n := 0; !stop.Load(); n++ {
			f := good
			if n%2 == 1 {
				f = bad
			}
			slot := n % 64
			binary.NativeEndian.PutUint32(x.mem[at+4*slot*16:], uint32(len(f)))
			copy(data[slot*16*x.o.BufferSize:], f)
		}
	})
	// Each frame has 16 buffers to itself; what is right about it changes.
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		if x.producer-x.word(ringToServer+wordConsumer) < 1024 {
			x.publish(16)
		} else if x.gone() {
			break
		}
	}
	stop.Store(true)
	flipper.Wait()
	r.requireAlive(t)
	x.close()
	x.mem = nil

	x = r.rogue(t, "puncher", netip.MustParseAddr("198.18.0.201"))
	for range 200 {
		require.NoError(t, unix.Fallocate(x.fds[0], unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, int64(len(x.mem))))
		x.ring()
	}
	r.requireAlive(t)
}

// TestRogueSource: frames with another's source go nowhere and are counted by
// what is wrong with them; the next right one goes out.
func TestRogueSource(t *testing.T) {
	r := newOffenderRig(t)
	x := r.rogue(t, "liar")
	require.True(t, x.lease.Shared)
	client := lab.ClientAddr4.Addr()
	to := netip.AddrPortFrom(client, 4000)
	clientMAC, err := r.Client.HardwareAddr(lab.ClientNIC)
	require.NoError(t, err)
	c, err := r.Client.ListenPacket("udp4", to.String())
	require.NoError(t, err)
	defer c.Close()
	port := x.bind(5000)
	lie := func(mac net.HardwareAddr, from netip.AddrPort) []byte {
		return datagram(mac, clientMAC, from, to, []byte("lie"))
	}
	const each = 100
	for range each {
		x.send(
			lie(clientMAC, netip.AddrPortFrom(addr4, port)), // another's MAC address
			lie(r.mac, netip.AddrPortFrom(client, port)),    // another's IP address
			lie(r.mac, netip.AddrPortFrom(rogueAddr, port)), // one that might be an instance's
			lie(r.mac, netip.AddrPortFrom(addr4, 6379)),     // another's port
			[]byte("neither Ethernet nor anything else at all"),
		)
	}
	truth := []byte("truth")
	x.send(datagram(r.mac, clientMAC, netip.AddrPortFrom(addr4, port), to, truth))
	require.NoError(t, c.SetDeadline(time.Now().Add(readyTimeout)))
	buf := make([]byte, 100)
	n, from, err := c.ReadFrom(buf)
	require.NoError(t, err)
	require.Equal(t, truth, buf[:n], "nothing came before it")
	require.Equal(t, netip.AddrPortFrom(addr4, port).String(), from.String())
	s := r.checkAccounts()
	drops := s.Ports[fmt.Sprint(x.lease.ID)].Drops
	require.EqualValues(t, each, drops["spoofed_mac"])
	require.EqualValues(t, 2*each, drops["spoofed_ip"])
	require.EqualValues(t, each, drops["spoofed_port"])
	require.EqualValues(t, each, drops["ether_type"])
	r.requireAlive(t)
}

// bind asks the monitor for a UDP port.
func (x *rogue) bind(port uint16) uint16 {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), readyTimeout)
	defer cancel()
	const udp = 1
	require.NoError(x.t, wire.Send(ctx, x.conn, 7, wire.TypeBind, wire.Bind{Socket: uint64(port), Proto: udp, Addr: netip.IPv4Unspecified(), Port: port}))
	env := x.receive(ctx)
	var b wire.Bound
	require.NoError(x.t, wire.Decode(&env, wire.TypeBound, &b))
	return b.Port
}

// TestRogueFloods: doorbells rung without end, and made to block, control
// messages by the ten thousand, silent connections and half messages hold up
// neither the network server nor the monitor.
func TestRogueFloods(t *testing.T) {
	r := newOffenderRig(t)
	x := r.rogue(t, "ringer", rogueAddr)
	for _, fd := range x.escrow[2:] { // the server's own ends of the doorbells
		require.NoError(t, unix.SetNonblock(fd, false))
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		for range 100 {
			x.ring()
			// Rings that the server should have heard are taken away from it.
			_, _, _ = unix.Recvfrom(x.escrow[3], make([]byte, 1), unix.MSG_DONTWAIT)
		}
	}
	r.requireAlive(t)

	// Requests without reading a single answer: only the rogue's own connection waits.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	sent := 0
	for ; sent < 100_000; sent++ {
		if err := wire.Send(ctx, x.conn, uint32(sent), wire.TypeClose, wire.Close{Socket: uint64(sent)}); err != nil {
			break
		}
	}
	require.NotZero(t, sent)
	r.requireAlive(t)

	// Halves of messages, to the limit of what the monitor keeps of one connection.
	y := r.rogue(t, "halves", netip.MustParseAddr("198.18.0.201"))
	half := append([]byte{1}, make([]byte, 30000)...)
	for n := 0; n < 1000 && y.conn.Send(t.Context(), uint32(n), control.Raw{Kind: wire.TypeBind, Payload: half}) == nil; n++ {
	}
	y.awaitCutOff(func() {})
	require.EqualValues(t, 1, r.offence("halves", "bad_message"))

	var silent []net.Conn
	for range 300 {
		c, err := net.Dial("unixpacket", r.socket)
		require.NoError(t, err)
		silent = append(silent, c)
	}
	r.requireAlive(t)
	for _, c := range silent {
		c.Close()
	}
}

// TestRogueMessages: wrong versions, roles that are not one's own and messages
// that make no sense end the connection and are counted.
func TestRogueMessages(t *testing.T) {
	r := newOffenderRig(t)
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	conn, err := control.Dial(ctx, r.socket)
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Handshake(ctx, control.Hello{Version: wire.Version + 1, Features: wire.RoleInstance, Name: "tomorrow"})
	require.ErrorIs(t, err, control.ErrVersion)

	server := r.introduce(t, "impostor", wire.RoleServer)
	env, err := server.Receive(ctx)
	require.NoError(t, err)
	require.Contains(t, env.Message.(*control.Error).Text, "not the network server")

	raw, err := net.Dial("unixpacket", r.socket)
	require.NoError(t, err)
	defer raw.Close()
	_, err = raw.Write([]byte("neither a hello nor anything else"))
	require.NoError(t, err)

	x := r.rogue(t, "babbler", rogueAddr)
	require.NoError(t, wire.Send(ctx, x.conn, 1, wire.TypeAttach, wire.Attach{ID: 1}))
	x.awaitCutOff(func() {})
	for _, offence := range [][2]string{{"tomorrow", "wrong_version"}, {"", "wrong_version"}, {"babbler", "bad_message"}} {
		require.Eventually(t, func() bool { return r.offence(offence[0], offence[1]) == 1 }, readyTimeout, 10*time.Millisecond, "%v", offence)
	}
	r.requireAlive(t)
}

// TestRogueSuccessor: to a monitor's successor an instance can bring other
// rings than its own: with memory that can be cut off under the server's feet,
// of another version, or none at all. A new network server refuses them; others
// come back.
func TestRogueSuccessor(t *testing.T) {
	r := newOffenderRig(t)
	rings := map[string]func(x *rogue) [ipc.FilesPerEnd]int{
		"shrinks": func(x *rogue) [3]int { return [3]int{unsealed(t, x, 1), x.escrow[2], x.escrow[3]} },
		"old":     func(x *rogue) [3]int { return [3]int{unsealed(t, x, 2), x.escrow[2], x.escrow[3]} },
		"files":   func(x *rogue) [3]int { return [3]int{0, 1, 2} },
	}
	rogues := make(map[string]*rogue)
	for name := range rings {
		rogues[name] = r.rogue(t, name, netip.AddrFrom4([4]byte{198, 18, 0, byte(200 + len(rogues))}))
	}
	r.monitor.kill()
	require.NoError(t, syscall.Kill(r.began.Server.PID, syscall.SIGKILL))
	var back sync.WaitGroup
	for name, x := range rogues {
		back.Go(func() { x.rejoin(rings[name](x)) })
	}
	r.startMonitor()
	back.Wait()
	r.began = r.awaitServer(r.began.Server.PID)
	for name, x := range rogues {
		require.Eventually(t, func() bool { return r.offence(name, "bad_rings") == 1 }, readyTimeout, 10*time.Millisecond, name)
		x.awaitCutOff(func() {})
	}
	r.requireAlive(t)
	require.Len(t, r.status().Instances, 1, "only the victim is left")
	r.stop() // before the monitor ends, which began later
}

// unsealed returns the memory of rings without a seal on its size, with the
// header of the given version.
func unsealed(t *testing.T, x *rogue, version uint32) int {
	fd, err := unix.MemfdCreate("rogue", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	require.NoError(t, err)
	require.NoError(t, unix.Ftruncate(fd, int64(len(x.mem))))
	header := append([]byte{}, x.mem[:64]...)
	binary.NativeEndian.PutUint32(header[8:], version)
	_, err = unix.Pwrite(fd, header, 0)
	require.NoError(t, err)
	if version != 1 { // only the version is wrong with it
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		if version == 1 {
			require.NoError(t, unix.Ftruncate(fd, 0))
		}
		_ = unix.Close(fd)
	})
	return fd
}

// rejoin waits for a monitor's call and brings it rings.
func (x *rogue) rejoin(rings [ipc.FilesPerEnd]int) {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	l, err := control.FromFile(x.escrow[0])
	x.escrow[0] = -1
	if err != nil {
		x.t.Error(err)
		return
	}
	defer l.Close()
	conn, err := l.Accept(ctx)
	if err == nil {
		_, err = conn.Handshake(ctx, control.Hello{Version: wire.Version, Features: wire.RoleInstance})
	}
	if err == nil {
		err = wire.Send(ctx, conn, 1, wire.TypeRejoin, wire.Rejoin{ID: x.lease.ID})
	}
	if err == nil {
		err = conn.Send(ctx, 1, control.Rings{Side: ipc.ServerSide, Queues: 1}, rings[:]...)
	}
	if err != nil {
		x.t.Errorf("%s: %v", x.name, err)
		return
	}
	_ = x.conn.Close()
	x.conn, x.in = conn, wire.Receiver{Conn: conn}
}

// TestPortmapIsReadOnly: who has the network server's view of the portmap, which
// no instance has, cannot write to it in any way.
func TestPortmapIsReadOnly(t *testing.T) {
	r := newOffenderRig(t)
	views := memfdsOf(t, r.began.Server.PID, "portmap")
	require.NotEmpty(t, views)
	before := r.portOwners()
	for _, path := range views {
		if fd, err := unix.Open(path, unix.O_RDWR, 0); err == nil {
			_, err = unix.Pwrite(fd, []byte{0xff}, 64)
			require.ErrorIs(t, err, unix.EPERM)
			_, err = unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			require.ErrorIs(t, err, unix.EPERM)
			require.ErrorIs(t, unix.Ftruncate(fd, 0), unix.EPERM)
			require.Error(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096))
			require.NoError(t, unix.Close(fd))
		}
	}
	require.Equal(t, before, r.portOwners())
	for _, i := range r.began.Instances {
		require.Empty(t, memfdsOf(t, i.PID, "portmap"), "of instance %s", i.Name)
	}
	r.requireAlive(t)
}

// memfdsOf returns the paths of a process's memfds with a name.
func memfdsOf(t *testing.T, pid int, name string) (paths []string) {
	dir := filepath.Join("/proc", fmt.Sprint(pid), "fd")
	fds, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join(dir, fd.Name()))
		if err == nil && strings.Contains(target, "memfd:") && strings.Contains(target, name) {
			paths = append(paths, filepath.Join(dir, fd.Name()))
		}
	}
	return paths
}

// TestUnprivilegedOperator: whom the monitor lets in without privileges may look, and
// nothing else.
func TestUnprivilegedOperator(t *testing.T) {
	r := newOffenderRig(t)
	ctl := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), exitTimeout)
		defer cancel()
		c := r.Server.Command(ctx, filepath.Join(commands, "junction_ctl"), append([]string{"--socket", r.socket}, args...)...)
		c.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		c.Dir = "/" // this one may be closed to others
		out, err := c.CombinedOutput()
		return string(out), err
	}
	out, err := ctl("status")
	require.Error(t, err, "by default the socket is its user's alone")
	require.Contains(t, out, "permission denied", "%v", err)
	require.NoError(t, os.Chmod(r.socket, 0o666))
	_, err = ctl("status")
	require.NoError(t, err)
	for _, verb := range [][]string{
		{"restart", "netserver"}, {"upgrade", "netserver", "/bin/true"}, {"limit", "victim", "--rate", "8"}, {"capture", "victim"},
	} {
		out, err := ctl(verb...)
		require.Error(t, err, verb)
		require.Contains(t, out, "ask as root", verb)
	}
	r.requireAlive(t)
}

// TestVictimsShare measures what an offender costs a victim, by turns: beside a
// loop that only computes, and beside the offender, which takes as much processor
// time itself. The ratio of the victim's replies tells what else it costs; so does
// the processor time that the network server took, which does not depend on what
// else the machine does.
func TestVictimsShare(t *testing.T) {
	skipLong(t)
	const pairs, turn = 5, 300 * time.Millisecond
	r := newOffenderRig(t)
	x := r.rogue(t, "offender", rogueAddr)
	lie := datagram(r.mac, r.mac, netip.AddrPortFrom(addr4, 6379), netip.AddrPortFrom(rogueAddr, 9), make([]byte, 1000))
	flood := func(f []byte) func() {
		return func() {
			if !x.full(len(f)) {
				x.write(make([]byte, ipc.VnetHdrLen), f)
				x.describe(uint32(ipc.VnetHdrLen + len(f)))
				x.publish(x.buffers(len(f)))
			}
		}
	}
	r.beside(turn, func() {}) // the first turn is not the others' like
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"doorbells", x.ring},
		{"frames with another's source", flood(lie)},
		{"frames to its own full ring", flood(r.own(1000))},
	} {
		var ratios, costs []float64
		for range pairs {
			control := r.beside(turn, func() {})
			attack := r.beside(turn, c.do)
			ratios = append(ratios, float64(attack.replies)/float64(max(1, control.replies)))
			costs = append(costs, (attack.server-control.server).Seconds()/turn.Seconds())
		}
		slices.Sort(ratios)
		slices.Sort(costs)
		t.Logf("beside %s: replies by those beside a loop, median %.2f, %.2f to %.2f; processors that the network server took more, %.2f, %.2f to %.2f",
			c.name, ratios[pairs/2], ratios[0], ratios[pairs-1], costs[pairs/2], costs[0], costs[pairs-1])
		r.requireAlive(t)
	}
}

// share is what there was in a turn.
type share struct {
	replies uint64        // the victim's
	server  time.Duration // processor time of the network server
}

// beside has something done again and again for a turn.
func (r *offenderRig) beside(turn time.Duration, do func()) share {
	var stop atomic.Bool
	var offender sync.WaitGroup
	offender.Go(func() {
		for !stop.Load() {
			do()
		}
	})
	replies, server := r.replies.Load(), processorTime(r.t, r.began.Server.PID)
	time.Sleep(turn) // what is counted is what happens meanwhile
	s := share{r.replies.Load() - replies, processorTime(r.t, r.began.Server.PID) - server}
	stop.Store(true)
	offender.Wait()
	return s
}

// processorTime is what all threads of a process have used (proc(5), schedstat).
func processorTime(t testing.TB, pid int) (sum time.Duration) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	require.NoError(t, err)
	for _, f := range files {
		var ran time.Duration
		if b, err := os.ReadFile(f); err == nil { // else the thread has ended
			_, err = fmt.Sscan(string(b), &ran)
			require.NoError(t, err)
		}
		sum += ran
	}
	return sum
}

package e2e

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"junction/internal/monitor/wire"
	"junction/ipc"
	"junction/ipc/control"
)

// Where things are in the memory of a ring pair: see ipc's layout. A rogue
// needs no more than these to know what it breaks.
const (
	ringToServer   = 1024 // control words of the ring that the instance produces for
	ringToInstance = 512
	wordProducer   = 0
	wordConsumer   = 128
	ringDescs      = 4096
)

// rogue is an instance that obeys nothing: a lease, with the memory of its rings
// and all descriptors in the hands of the test.
type rogue struct {
	t      *testing.T
	name   string
	conn   *control.Conn
	in     wire.Receiver
	lease  wire.Joined
	fds    [ipc.FilesPerEnd]int // its own side: memfd, two doorbells
	escrow []int                // listener, and the server's side of the rings
	mem    []byte
	o      ipc.Options

	producer uint32 // of the ring to the server
}

// rogue joins as an instance, for dedicated addresses or the shared one.
func (r *rig) rogue(t *testing.T, name string, addrs ...netip.Addr) *rogue {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	x := &rogue{t: t, name: name, conn: r.introduce(t, name, wire.RoleInstance)}
	x.in.Conn = x.conn
	require.NoError(t, wire.Send(ctx, x.conn, 1, wire.TypeJoin, wire.Join{Addrs: addrs}))
	env := x.receive(ctx)
	require.NoError(t, wire.Decode(&env, wire.TypeJoined, &x.lease))
	env = x.receive(ctx)
	require.Len(t, env.Files, ipc.FilesPerEnd)
	x.fds = [ipc.FilesPerEnd]int(env.Files)
	env = x.receive(ctx)
	require.Len(t, env.Files, 1+ipc.FilesPerEnd)
	x.escrow = env.Files
	t.Cleanup(x.close)
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(x.fds[0], &st))
	var err error
	x.mem, err = unix.Mmap(x.fds[0], 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	x.o = ipc.Options{Buffers: int(x.word(12)), BufferSize: int(x.word(16))}
	return x
}

// introduce connects to the monitor.
func (r *rig) introduce(t *testing.T, name string, role uint64) *control.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	conn, err := control.Dial(ctx, r.socket)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = conn.Handshake(ctx, control.Hello{Version: wire.Version, Features: role, Name: name})
	require.NoError(t, err)
	return conn
}

func (x *rogue) receive(ctx context.Context) control.Envelope {
	x.t.Helper()
	env, err := x.in.Receive(ctx)
	require.NoError(x.t, err)
	return env
}

func (x *rogue) close() {
	x.conn.Close()
	for _, fd := range append(x.fds[:], x.escrow...) {
		_ = unix.Close(fd)
	}
	if x.mem != nil {
		require.NoError(x.t, unix.Munmap(x.mem))
	}
}

func (x *rogue) word(at int) uint32       { return binary.NativeEndian.Uint32(x.mem[at:]) }
func (x *rogue) setWord(at int, v uint32) { binary.NativeEndian.PutUint32(x.mem[at:], v) }

// describe writes the descriptor of the next frame to the server.
func (x *rogue) describe(n uint32) {
	x.setWord(ringDescs+4*x.o.Buffers+4*int(x.producer&uint32(x.o.Buffers-1)), n)
}

// publish moves the producer's index by n buffers and rings.
func (x *rogue) publish(n uint32) {
	x.producer += n
	x.setWord(ringToServer+wordProducer, x.producer)
	x.ring()
}

func (x *rogue) ring() {
	_ = unix.Send(x.fds[1], []byte{1}, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	_ = unix.Send(x.fds[2], []byte{1}, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// send puts frames into the ring as an honest instance would, waiting for room.
func (x *rogue) send(frames ...[]byte) {
	x.t.Helper()
	deadline := time.Now().Add(readyTimeout)
	for _, f := range frames {
		n := uint32(ipc.VnetHdrLen + len(f))
		for x.full(len(f)) {
			x.ring()
			require.True(x.t, time.Now().Before(deadline), "the server takes no more")
			time.Sleep(time.Millisecond) // a rogue has no event
		}
		x.write(make([]byte, ipc.VnetHdrLen), f)
		x.describe(n)
		x.publish(x.buffers(len(f)))
	}
}

// buffers returns how many a frame of n bytes takes.
func (x *rogue) buffers(n int) uint32 {
	return uint32((ipc.VnetHdrLen + n + x.o.BufferSize - 1) / x.o.BufferSize)
}

// full tells whether a frame of n bytes has no room.
func (x *rogue) full(n int) bool {
	return x.producer-x.word(ringToServer+wordConsumer)+x.buffers(n) > uint32(x.o.Buffers)
}

// write puts bytes where the next frame to the server is.
func (x *rogue) write(parts ...[]byte) {
	size := x.o.Buffers * x.o.BufferSize
	data := x.mem[ringDescs+8*x.o.Buffers+size:][:size]
	at := int(x.producer&uint32(x.o.Buffers-1)) * x.o.BufferSize
	for _, p := range parts {
		for len(p) > 0 {
			n := copy(data[at%size:], p)
			p, at = p[n:], at+n
		}
	}
}

// scribble writes something anywhere, where it matters most.
func (x *rogue) scribble(rng *rand.Rand) {
	switch rng.IntN(4) {
	case 0:
		x.setWord(ringToInstance+4*rng.IntN(256), rng.Uint32()>>rng.IntN(32))
	case 1:
		x.setWord(ringDescs+4*rng.IntN(2*x.o.Buffers), rng.Uint32()>>rng.IntN(32))
	case 2:
		x.setWord(ringToServer+wordProducer, x.word(ringToServer+wordProducer)+rng.Uint32()>>rng.IntN(32))
	case 3:
		x.mem[rng.IntN(len(x.mem))] = byte(rng.Uint32())
	}
}

// gone tells whether the monitor has ended the lease.
func (x *rogue) gone() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	for {
		env, err := x.in.Receive(ctx)
		if err != nil {
			return ctx.Err() == nil
		}
		env.Close()
	}
}

// awaitCutOff does something again and again until the rogue is cut off.
func (x *rogue) awaitCutOff(again func()) {
	x.t.Helper()
	deadline := time.Now().Add(readyTimeout)
	for !x.gone() {
		require.True(x.t, time.Now().Before(deadline), "%s was not cut off", x.name)
		again()
		x.ring()
	}
}

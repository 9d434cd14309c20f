package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestScribbler: the peer writes random bytes all over a ring while it is in
// use, control words and descriptors most of all. Nothing panics or hangs, and
// the peer is found out and named.
func TestScribbler(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 100
	}
	before := openFDs(t)
	found := map[string]uint64{}
	// On until each breach has been seen: which ones depends on who is faster.
	for n := 0; n < rounds || n < 20*rounds && slices.Contains(slices.Collect(maps.Values(found)), 0); n++ {
		for dir := range 2 {
			for name, n := range scribble(t, dir) {
				found[name] += n
			}
		}
	}
	t.Log(found)
	for name, n := range found {
		require.NotZero(t, n, "never seen: %s", name)
	}
	require.Equal(t, before, openFDs(t))
}

// scribble lets a hostile instance loose on ring dir until it is found out, and
// returns the breaches counted.
func scribble(t *testing.T, dir int) map[string]uint64 {
	p, err := NewPair(small)
	require.NoError(t, err)
	defer p.Close()
	e, err := p.Attach(ServerSide)
	require.NoError(t, err)
	mem, err := unix.Mmap(p.mem, 0, p.opts.memSize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(mem)) }()

	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for bells := p.Files(InstanceSide); !stop.Load(); runtime.Gosched() {
			attack(mem, p.opts, dir)
			_ = unix.Send(bells[1+rand.IntN(2)], oneByte[:], unix.MSG_DONTWAIT)
		}
	}()
	if dir == int(ServerSide) {
		require.ErrorIs(t, sendNumbered(e, 1<<30), ErrPeer)
	} else {
		require.ErrorIs(t, receiveAnything(t, e), ErrPeer)
	}
	stop.Store(true)
	<-done
	var bad *PeerError
	require.ErrorAs(t, e.Err(), &bad)
	require.NotEmpty(t, bad.Error())
	require.ErrorIs(t, errors.Join(e.Wait(), e.TransmitWait(), e.Flush()), ErrPeer)
	s := e.Stats()
	require.NoError(t, e.Close())
	return s.Breaches
}

// attack writes to one random place of a ring, mostly something plausible.
func attack(mem []byte, o Options, dir int) {
	control, desc, data := o.laneOffsets(dir)
	ne := binary.NativeEndian
	producer := ne.Uint32(mem[control+offProducer:])
	switch rand.IntN(7) {
	case 0: // some frames, good or bad
		for range rand.IntN(o.Buffers) {
			ne.PutUint32(mem[desc+4*int(producer&uint32(o.Buffers-1)):], rand.Uint32N(2*MaxFrame)>>rand.IntN(18))
			producer++
		}
		ne.PutUint32(mem[control+offProducer:], producer)
	case 1:
		ne.PutUint32(mem[control+offProducer:], producer+rand.Uint32()>>rand.IntN(32))
	case 2:
		ne.PutUint32(mem[control+offConsumer:], producer-rand.Uint32()>>rand.IntN(32))
	case 3:
		ne.PutUint64(mem[control+offRxSleep+128*rand.IntN(2):], rand.Uint64())
	case 4:
		ne.PutUint32(mem[desc+4*rand.IntN(o.Buffers):], rand.Uint32()>>rand.IntN(32))
	case 5: // a long frame of which only the beginning is there
		ne.PutUint32(mem[desc+4*int(producer&uint32(o.Buffers-1)):], MaxFrame)
		ne.PutUint32(mem[control+offProducer:], producer+1)
	case 6:
		mem[data+rand.IntN(o.laneSize())] = byte(rand.Int())
	}
}

// receiveAnything receives until there is an error and touches all of it.
func receiveAnything(t *testing.T, e *End) error {
	frames := make([][]byte, 32)
	for {
		n, err := e.Receive(frames)
		if err != nil {
			return err
		}
		for _, f := range frames[:n] {
			require.GreaterOrEqual(t, len(f), VnetHdrLen+MinFrame)
			require.LessOrEqual(t, len(f), VnetHdrLen+MaxFrame)
			_ = append([]byte(nil), f...)
		}
		e.Release()
		if n == 0 {
			if err := e.Wait(); err != nil {
				return err
			}
		}
	}
}

// TestReceivedIsPrivate: what the peer changes after Receive does not show.
func TestReceivedIsPrivate(t *testing.T) {
	_, tx, rx := ends(t, small)
	hdr, frame := frameOf(make([]byte, 1000), 1, 1000)
	require.NoError(t, tx.Transmit(hdr, [][]byte{frame}))
	require.NoError(t, tx.Flush())
	got := make([][]byte, 1)
	_, err := rx.Receive(got)
	require.NoError(t, err)
	clear(tx.tx.ring.data)
	require.NoError(t, verify(got[0], 1, 1000, make([]byte, 1000)))
}

// TestHostileBell: a peer that floods the doorbell, makes its end block and
// hears nothing neither blocks us nor hides a frame.
func TestHostileBell(t *testing.T) {
	p, server, _ := ends(t, small)
	peer := p.Files(InstanceSide)
	for _, fd := range peer[1:] {
		require.NoError(t, unix.SetNonblock(fd, false))
		for unix.Send(fd, make([]byte, 100), unix.MSG_DONTWAIT) == nil {
		}
	}
	// Our rings fill the peer's sockets too.
	for range 5000 {
		server.tx.bell.ring()
		server.rx.bell.ring()
	}
	for range 5000 {
		for unix.Send(peer[1], make([]byte, 300), unix.MSG_DONTWAIT) == nil {
		}
		require.NoError(t, server.Wait())
	}
	_, err := server.Receive(make([][]byte, 1))
	require.NoError(t, err)
	require.Empty(t, nonZero(server.Stats().Breaches))
}

// TestStolenBell: a peer that holds our end too, makes it block and takes the
// rings away before we hear them, does not block us.
func TestStolenBell(t *testing.T) {
	p, server, peer := ends(t, small)
	ours := p.Files(ServerSide)[2]
	require.NoError(t, unix.SetNonblock(ours, false))
	frame := [][]byte{make([]byte, 100)}
	for range 100 {
		require.True(t, server.RxPrepareWait())
		require.NoError(t, errors.Join(peer.Transmit(nil, frame), peer.Flush()))
		_, _, err := unix.Recvfrom(ours, make([]byte, 10), unix.MSG_DONTWAIT)
		require.NoError(t, err)
		require.NoError(t, server.RxFinishWait(), "there is nothing to read")
		n, err := server.Receive(make([][]byte, 1))
		require.NoError(t, err)
		require.Equal(t, 1, n)
		server.Release()
	}
}

// TestBellRefusesDescriptors: the kernel does not let a peer put descriptors
// into our doorbell, where closing them could block us.
func TestBellRefusesDescriptors(t *testing.T) {
	var probe [2]int
	probe, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	err = unix.SetsockoptInt(probe[0], unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
	closeAll(probe[:])
	if errors.Is(err, unix.ENOPROTOOPT) {
		t.Skip("this kernel is older than Linux 6.16 and has no SO_PASSRIGHTS")
	}
	p, _, _ := ends(t, small)
	peer := p.Files(InstanceSide)
	for _, fd := range peer[1:] {
		err := unix.Sendmsg(fd, []byte{1}, unix.UnixRights(fd), nil, unix.MSG_DONTWAIT)
		require.ErrorIs(t, err, unix.EPERM)
	}
}

// TestSealed: no holder of a descriptor can change the size of the memfd, which
// is what would make the others die of SIGBUS, nor unseal it.
func TestSealed(t *testing.T) {
	p, _, _ := ends(t, small)
	fd := p.Files(InstanceSide)[0]
	require.ErrorIs(t, unix.Ftruncate(fd, 0), unix.EPERM)
	require.ErrorIs(t, unix.Ftruncate(fd, int64(2*p.opts.memSize())), unix.EPERM)
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE)
	require.ErrorIs(t, err, unix.EPERM)
}

// TestHolePunched: taking the pages away leaves zeros, which is no protocol, but
// no SIGBUS either.
func TestHolePunched(t *testing.T) {
	p, tx, rx := ends(t, small)
	frame := [][]byte{make([]byte, 2000)}
	require.NoError(t, errors.Join(tx.Transmit(nil, frame), tx.Flush()))
	err := unix.Fallocate(p.mem, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, int64(p.opts.memSize()))
	require.NoError(t, err)
	_, err = rx.Receive(make([][]byte, 1))
	require.NoError(t, err, "an index of zero is an empty ring")
	for range 2 {
		for err = nil; err == nil; err = tx.Transmit(nil, frame) {
		}
		require.NoError(t, tx.Flush())
	}
}

// TestAttachRefuses: descriptors that are not those of a ring pair are refused
// with a reason, and closed.
func TestAttachRefuses(t *testing.T) {
	before := openFDs(t)
	for name, spoil := range map[string]func(fds *[FilesPerEnd]int){
		"descriptors in another order": func(fds *[FilesPerEnd]int) { fds[0], fds[1] = fds[1], fds[0] },
		"the same one twice":           func(fds *[FilesPerEnd]int) { closeAll(fds[2:]); fds[2] = fds[1] },
		"a negative one":               func(fds *[FilesPerEnd]int) { closeAll(fds[2:]); fds[2] = -1 },
		"one that is not open":         func(fds *[FilesPerEnd]int) { closeAll(fds[1:2]); fds[1] = 1 << 20 },
		"a file":                       func(fds *[FilesPerEnd]int) { replace(t, &fds[0], openNull(t)) },
		"a bell that is a file":        func(fds *[FilesPerEnd]int) { replace(t, &fds[2], openNull(t)) },
		"a bell that blocks":           func(fds *[FilesPerEnd]int) { require.NoError(t, unix.SetNonblock(fds[1], false)) },
		"a bell of datagrams":          func(fds *[FilesPerEnd]int) { replace(t, &fds[1], datagramSocket(t)) },
		"a memfd without seals":        func(fds *[FilesPerEnd]int) { replace(t, &fds[0], memfdWith(t, 1<<20, 0, nil)) },
		"an empty memfd":               func(fds *[FilesPerEnd]int) { replace(t, &fds[0], memfdWith(t, 0, seals, nil)) },
		"a memfd of zeros":             func(fds *[FilesPerEnd]int) { replace(t, &fds[0], memfdWith(t, 1<<20, seals, nil)) },
		"a memfd of another size":      func(fds *[FilesPerEnd]int) { replace(t, &fds[0], memfdWith(t, small.memSize()-1, seals, &small)) },
	} {
		t.Run(name, func(t *testing.T) {
			p, err := NewPair(small)
			require.NoError(t, err)
			var fds [FilesPerEnd]int
			for i, fd := range p.Files(InstanceSide) {
				fds[i], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
				require.NoError(t, err)
			}
			spoil(&fds)
			_, err = Attach(InstanceSide, fds)
			require.ErrorIs(t, err, ErrLayout)
			require.NoError(t, p.Close())
		})
		require.Equal(t, before, openFDs(t), name)
	}
	_, err := Attach(sides, [FilesPerEnd]int{-1, -1, -1})
	require.ErrorIs(t, err, ErrLayout)
}

func replace(t *testing.T, fd *int, with int) { require.NoError(t, unix.Close(*fd)); *fd = with }

func openNull(t *testing.T) int {
	fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	require.NoError(t, err)
	return fd
}

func datagramSocket(t *testing.T) int {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	require.NoError(t, err)
	return fd
}

func memfdWith(t *testing.T, size, seals int, header *Options) int {
	fd, err := newMemfd("test")
	require.NoError(t, err)
	require.NoError(t, unix.Ftruncate(fd, int64(size)))
	if header != nil {
		var b [headerLen]byte
		header.putHeader(b[:])
		_, err = unix.Pwrite(fd, b[:], 0)
		require.NoError(t, err)
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	require.NoError(t, err)
	return fd
}

// TestOptions: sizes that cannot be are refused by name.
func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{Buffers: 1000}, {Buffers: 512}, {Buffers: 1 << 21}, {Buffers: -1024}, {BufferSize: 32}, {BufferSize: 100},
		{BufferSize: 8192}, {Buffers: 1024, BufferSize: 64}, {Buffers: 1 << 20, BufferSize: 4096},
	} {
		_, err := NewPair(o)
		require.ErrorIs(t, err, ErrOptions, "%+v", o)
	}
}

// FuzzHeader: a header is refused, or gives sizes that make that very header.
func FuzzHeader(f *testing.F) {
	var b [headerLen]byte
	small.putHeader(b[:])
	f.Add(b[:], int64(small.memSize()))
	Options{}.withDefaults().putHeader(b[:])
	f.Add(b[:], int64(Options{}.withDefaults().memSize()))
	f.Fuzz(func(t *testing.T, in []byte, size int64) {
		var b, again [headerLen]byte
		copy(b[:], in)
		o, err := parseHeader(&b, size)
		if err != nil {
			require.ErrorIs(t, err, ErrLayout)
			return
		}
		o.putHeader(again[:])
		require.Equal(t, b, again)
		require.Equal(t, size, int64(o.memSize()))
		for dir := range 2 {
			control, desc, data := o.laneOffsets(dir)
			require.LessOrEqual(t, control+controlSize, descBase)
			require.LessOrEqual(t, int64(desc+4*o.Buffers), size)
			require.LessOrEqual(t, int64(data+o.laneSize()), size)
			require.Zero(t, desc%8+data%8)
		}
	})
}

// FuzzPeer plays a script, three bytes a step: what the peer writes in between
// calls of ours. Whatever it is, frames stay within bounds, and an error stays.
func FuzzPeer(f *testing.F) {
	f.Add([]byte{0, 1, 0, 1, 100, 0, 4, 0, 0, 5, 0, 0, 6, 0, 0, 7, 0, 0, 8, 0, 0})
	f.Add([]byte{2, 255, 255, 4, 0, 0, 3, 0, 0, 6, 200, 9})
	f.Fuzz(func(t *testing.T, script []byte) {
		in, out := ordinaryLane(64, 64, 0), ordinaryLane(64, 64, 0)
		e := newEnd(out, in) // its doorbells do nothing
		frames := make([][]byte, 8)
		var sticky error
		for ; len(script) >= 3; script = script[3:] {
			v := uint32(binary.LittleEndian.Uint16(script[1:]))
			v = v<<16 | v&0x7fff // large and small
			if script[0]&0x80 == 0 {
				v &= 0x7fff
			}
			err := fuzzStep(t, e, in, out, script[0]&0x0f, v, frames)
			if errors.Is(err, ErrPeer) {
				sticky = err
			}
			if sticky != nil {
				require.ErrorIs(t, e.Err(), ErrPeer)
			}
		}
	})
}

func fuzzStep(t *testing.T, e *End, in, out lane, op byte, v uint32, frames [][]byte) error {
	switch op {
	case 0:
		in.desc[v%64] = v >> 6
	case 1:
		in.producer.Add(v)
	case 2:
		in.producer.Store(v)
	case 3:
		out.consumer.Store(v)
	case 4:
		n, err := e.Receive(frames)
		for _, b := range frames[:n] {
			if len(b) < VnetHdrLen+MinFrame || len(b) > 64*64 {
				t.Fatal(fmt.Sprint("frame of ", len(b)))
			}
		}
		return err
	case 5:
		e.Release()
	case 6:
		return e.Transmit(nil, [][]byte{make([]byte, v%4000)})
	case 7:
		return e.Flush()
	case 8:
		e.TxPrepareWait()
		e.tx.sleep.awake()
		e.RxPrepareWait()
		e.rx.sleep.awake()
	}
	return nil
}

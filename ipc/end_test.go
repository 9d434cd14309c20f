package ipc

import (
	"errors"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestEveryLength passes frames of every length class through a memfd, both
// ways, in parts.
func TestEveryLength(t *testing.T) {
	_, server, instance := ends(t, Options{})
	lengths := []int{MaxFrame, MaxFrame - 1, 65549, 65535, 32768, 9014}
	for n := MinFrame; n <= 4200; n++ {
		lengths = append(lengths, n)
	}
	buf, scratch, got := make([]byte, MaxFrame), make([]byte, MaxFrame), make([][]byte, 4)
	for i, n := range lengths {
		for _, d := range [][2]*End{{server, instance}, {instance, server}} {
			hdr, frame := frameOf(buf, uint64(i), n)
			cut := rand.IntN(n + 1)
			require.NoError(t, d[0].Transmit(hdr, [][]byte{frame[:cut], nil, frame[cut:]}))
			require.NoError(t, d[0].Flush())
			k, err := d[1].Receive(got)
			require.NoError(t, err)
			require.Equal(t, 1, k)
			require.NoError(t, verify(got[0], uint64(i), n, scratch))
			d[1].Release()
		}
	}
	require.Equal(t, server.Stats().TxBytes, instance.Stats().RxBytes)
	require.Equal(t, uint64(len(lengths)), instance.Stats().TxPackets)
}

// TestBothSidesAtOnce sends numbered frames both ways through small rings with
// random bursts and batches; everybody sleeps when there is nothing to do. The
// rings lie in ordinary memory, for the race detector.
func TestBothSidesAtOnce(t *testing.T) {
	total := 200_000
	if testing.Short() {
		total = 20_000
	}
	a, b := ordinaryEnds(t, 64, 64, ^uint32(0)-1000)
	var all sync.WaitGroup
	errs := make(chan error, 4)
	for _, d := range [][2]*End{{a, b}, {b, a}} {
		all.Go(func() { errs <- sendNumbered(d[0], total) })
		all.Go(func() { errs <- receiveNumbered(d[1], total) })
	}
	all.Wait()
	for range 4 {
		require.NoError(t, <-errs)
	}
	for _, d := range [][2]*End{{a, b}, {b, a}} {
		tx, rx := d[0].Stats(), d[1].Stats()
		require.Equal(t, uint64(total), tx.TxPackets)
		require.Equal(t, tx.TxPackets, rx.RxPackets)
		require.Equal(t, tx.TxBytes, rx.RxBytes)
		require.NotZero(t, tx.TxSleeps)
		require.NotZero(t, rx.RxSleeps)
		require.Empty(t, nonZero(rx.Breaches))
	}
}

func shortLength(seq int) int { return MinFrame + seq*7%1800 }

func sendNumbered(e *End, total int) error {
	buf := make([]byte, MaxFrame)
	for i := range total {
		hdr, frame := frameOf(buf, uint64(i), shortLength(i))
		if err := sendAll(e, hdr, frame); err != nil {
			return err
		}
		if rand.IntN(5) == 0 {
			if err := e.Flush(); err != nil {
				return err
			}
		}
	}
	return e.Flush()
}

func receiveNumbered(e *End, total int) error {
	frames, scratch := make([][]byte, 16), make([]byte, MaxFrame)
	for got := 0; got < total; {
		n, err := e.Receive(frames[:1+rand.IntN(16)])
		if err != nil {
			return err
		}
		for _, f := range frames[:n] {
			if err := verify(f, uint64(got), shortLength(got), scratch); err != nil {
				return err
			}
			got++
		}
		if n > 0 && rand.IntN(3) > 0 {
			continue // several batches before a Release
		}
		e.Release()
		if n == 0 {
			if err := e.Wait(); err != nil {
				return err
			}
		}
	}
	e.Release()
	return nil
}

// TestMillionWakeups: two goroutines sleep until the other one's frame comes,
// over and over; one lost wake-up and the test hangs.
func TestMillionWakeups(t *testing.T) {
	total := 1_000_000
	if testing.Short() {
		total = 20_000
	}
	_, near, far := ends(t, small)
	done := make(chan error, 1)
	go func() { done <- echo(far, total, true) }()
	require.NoError(t, pingPong(near, total))
	require.NoError(t, <-done)
	n, f := near.Stats(), far.Stats()
	t.Logf("%d sleeps, %d rings", n.RxSleeps+f.RxSleeps, n.Rings+f.Rings)
	require.Greater(t, n.Rings+f.Rings, uint64(total)/2, "hardly anybody was asleep: nothing was tested")
	require.LessOrEqual(t, n.Rings, f.RxSleeps)
	require.LessOrEqual(t, f.Rings, n.RxSleeps)
}

func pingPong(e *End, total int) error {
	frame := [][]byte{make([]byte, 60)}
	for range total {
		if err := errors.Join(e.Transmit(nil, frame), e.Flush(), drain(e, 1, true)); err != nil {
			return err
		}
	}
	return nil
}

// TestForwarding passes frames through a process in the middle that looks at
// the first bytes only.
func TestForwarding(t *testing.T) {
	_, src, in := ends(t, small)
	_, out, dst := ends(t, small)
	buf, scratch, got, views := make([]byte, MaxFrame), make([]byte, MaxFrame), make([][]byte, 4), make([]View, 4)
	for i := range 3000 {
		n, head := MinFrame+i*i%3000, i%200
		if i%50 == 0 {
			n = MaxFrame - i
		}
		hdr, frame := frameOf(buf, uint64(i), n)
		require.NoError(t, errors.Join(src.Transmit(hdr, [][]byte{frame}), src.Flush()))
		k, err := in.ReceiveViews(views, head)
		require.NoError(t, err)
		require.Equal(t, 1, k)
		v := views[0]
		require.Len(t, v.Head, VnetHdrLen+min(head, n))
		require.NoError(t, out.Transmit((*[VnetHdrLen]byte)(v.Head), [][]byte{v.Head[VnetHdrLen:], v.Tail[0], v.Tail[1]}))
		require.NoError(t, out.Flush())
		in.Release()
		_, err = dst.Receive(got)
		require.NoError(t, err)
		require.NoError(t, verify(got[0], uint64(i), n, scratch))
		dst.Release()
	}
	require.Equal(t, src.Stats().TxBytes, dst.Stats().RxBytes)
}

// TestRefused: what Transmit never takes, it names and counts.
func TestRefused(t *testing.T) {
	_, tx, _ := ends(t, small)
	big := make([]byte, MaxFrame)
	require.ErrorIs(t, tx.Transmit(nil, [][]byte{big[:MinFrame-1]}), ErrBadFrame)
	require.ErrorIs(t, tx.Transmit(nil, nil), ErrBadFrame)
	require.ErrorIs(t, tx.Transmit(nil, [][]byte{big, {1}}), ErrTooLong)

	require.NoError(t, tx.Transmit(nil, [][]byte{big, {}}))
	require.NoError(t, tx.Flush())
	s := tx.Stats()
	require.Equal(t, map[string]uint64{"tx_full": 0, "tx_too_long": 1, "tx_bad_frame": 2}, s.Refused)
	require.Equal(t, uint64(1), s.TxPackets)
}

// TestFullRing: a full ring takes frames again after a Release, not before.
func TestFullRing(t *testing.T) {
	_, tx, rx := ends(t, small)
	frame := [][]byte{make([]byte, 60)}
	for range small.Buffers {
		require.NoError(t, tx.Transmit(nil, frame))
	}
	require.ErrorIs(t, tx.Transmit(nil, frame), ErrFull)
	require.NoError(t, tx.Flush())
	require.ErrorIs(t, tx.Transmit(nil, frame), ErrFull)
	got := make([][]byte, 2*small.Buffers)
	n, err := rx.Receive(got)
	require.NoError(t, err)
	require.Equal(t, small.Buffers, n)
	require.ErrorIs(t, tx.Transmit(nil, frame), ErrFull, "received is not released")
	waited := make(chan error, 1)
	go func() { waited <- tx.TransmitWait() }()
	for tx.Stats().TxSleeps == 0 {
		runtime.Gosched()
	}
	rx.Release()
	require.NoError(t, <-waited)
	require.NoError(t, tx.Transmit(nil, frame))
	require.Equal(t, uint64(3), tx.Stats().Refused["tx_full"])
}

// TestTransmitWaitWants: room for a short frame is not room for the long one
// that was refused.
func TestTransmitWaitWants(t *testing.T) {
	a, b := ordinaryEnds(t, 64, 64, 0)
	short, long := [][]byte{make([]byte, 50)}, [][]byte{make([]byte, 1000)}
	for range 64 {
		require.NoError(t, a.Transmit(nil, short))
	}
	require.NoError(t, a.Flush())
	require.ErrorIs(t, a.Transmit(nil, long), ErrFull)
	got := make([][]byte, 15)
	n, err := b.Receive(got)
	require.NoError(t, err)
	require.Equal(t, 15, n)
	b.Release()
	require.True(t, a.TxPrepareWait(), "1010 bytes take 16 buffers, 15 are free")
	require.NoError(t, a.TxFinishWait())
	_, err = b.Receive(got[:1])
	require.NoError(t, err)
	b.Release()
	require.False(t, a.TxPrepareWait())
	require.NoError(t, a.Transmit(nil, long))
}

// TestOneRingForASleep: a producer rings once, however often it flushes, and not
// for a consumer that is awake.
func TestOneRingForASleep(t *testing.T) {
	_, tx, rx := ends(t, small)
	frame := [][]byte{make([]byte, 60)}
	require.NoError(t, errors.Join(tx.Transmit(nil, frame), tx.Flush()))
	require.Zero(t, tx.Stats().Rings)
	require.False(t, rx.RxPrepareWait(), "a frame waits")
	_, err := rx.Receive(make([][]byte, 1))
	require.NoError(t, err)
	for sleep := range 3 {
		require.True(t, rx.RxPrepareWait())
		for range 4 {
			require.NoError(t, errors.Join(tx.Transmit(nil, frame), tx.Flush()))
			require.Equal(t, uint64(sleep+1), tx.Stats().Rings)
		}
		fds := []unix.PollFd{{Fd: int32(rx.RxFD()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		require.NoError(t, err)
		require.Equal(t, 1, n, "the descriptor is readable")
		require.NoError(t, rx.RxFinishWait())
		n, err = unix.Poll(fds, 0)
		require.NoError(t, err)
		require.Zero(t, n, "no ring is left over")
		got, err := rx.Receive(make([][]byte, 8))
		require.NoError(t, err)
		require.Equal(t, 4, got)
		rx.Release()
	}
}

// TestSuccessorRings: a process that died after publishing and before ringing
// has its sleeping peer woken by its successor.
func TestSuccessorRings(t *testing.T) {
	p, tx, rx := ends(t, small)
	woken := make(chan error, 1)
	go func() { woken <- rx.Wait() }()
	for rx.Stats().RxSleeps == 0 {
		runtime.Gosched()
	}
	require.NoError(t, tx.Transmit(nil, [][]byte{make([]byte, 60)}))
	tx.tx.ring.publish()
	require.NoError(t, tx.Close())
	again, err := p.Attach(ServerSide)
	require.NoError(t, err)
	defer again.Close()
	require.NoError(t, <-woken)
	n, err := rx.Receive(make([][]byte, 1))
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// TestBreachEndsBothWays: a breach in one direction ends a wait in the other.
func TestBreachEndsBothWays(t *testing.T) {
	_, e, peer := ends(t, small)
	for e.Transmit(nil, [][]byte{make([]byte, MaxFrame)}) == nil {
	}
	require.NoError(t, e.TransmitWait(), "the peer has rung when it came")
	waited := make(chan error, 1)
	go func() { waited <- e.TransmitWait() }()
	for e.Stats().TxSleeps < 2 {
		runtime.Gosched()
	}
	peer.tx.ring.producer.Store(5000)
	_, err := e.Receive(make([][]byte, 1))
	require.ErrorIs(t, err, ErrPeer)
	require.ErrorIs(t, <-waited, ErrPeer)
	require.ErrorIs(t, e.Transmit(nil, [][]byte{make([]byte, 60)}), ErrPeer)
	require.Equal(t, uint64(1), e.Stats().Breaches["bad_producer_index"])
	require.NotZero(t, e.Stats().Drops["tx_unflushed"])
}

// TestWakeAndClose: Wake ends one wait of each side, now or the next; Close ends
// all and is final.
func TestWakeAndClose(t *testing.T) {
	_, a, b := ends(t, small)
	a.Wake()
	require.NoError(t, a.Wait())
	frame := [][]byte{make([]byte, MaxFrame)}
	for a.Transmit(nil, frame) == nil {
	}
	require.NoError(t, a.TransmitWait(), "woken before")

	errs := make(chan error, 2)
	go func() { errs <- a.Wait() }()
	go func() { errs <- a.TransmitWait() }()
	for s := a.Stats(); s.RxSleeps < 2 || s.TxSleeps < 2; s = a.Stats() {
		runtime.Gosched()
	}
	require.NoError(t, a.Close())
	require.ErrorIs(t, <-errs, net.ErrClosed)
	require.ErrorIs(t, <-errs, net.ErrClosed)
	require.NoError(t, a.Close())
	_, err := a.Receive(make([][]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	a.Release()
	require.ErrorIs(t, a.Transmit(nil, frame), net.ErrClosed)
	require.ErrorIs(t, a.Flush(), net.ErrClosed)
	require.ErrorIs(t, a.Wait(), net.ErrClosed)
	require.ErrorIs(t, a.TransmitWait(), net.ErrClosed)
	a.Wake()
	s := a.Stats()
	require.NotZero(t, s.Drops["tx_unflushed"])
	require.Zero(t, s.TxPackets)
	n, err := b.Receive(make([][]byte, 1))
	require.NoError(t, err, "what was not flushed has not arrived")
	require.Zero(t, n)
}

// TestCloseWhileBusy closes an End that other goroutines are using.
func TestCloseWhileBusy(t *testing.T) {
	before := openFDs(t)
	for range 50 {
		p, err := NewPair(small)
		require.NoError(t, err)
		a, err := p.Attach(ServerSide)
		require.NoError(t, err)
		b, err := p.Attach(InstanceSide)
		require.NoError(t, err)
		errs := make(chan error, 2)
		go func() { errs <- sendNumbered(a, 1<<30) }()
		go func() { errs <- drain(a, 1<<30, true) }()
		require.NoError(t, drain(b, 100, true))
		require.NoError(t, sendNumbered(b, 100))
		require.NoError(t, a.Close())
		require.ErrorIs(t, <-errs, net.ErrClosed)
		require.ErrorIs(t, <-errs, net.ErrClosed)
		require.NoError(t, b.Close())
		require.NoError(t, p.Close())
	}
	require.Equal(t, before, openFDs(t))
}

// TestNoAllocation: steady state allocates nothing, awake or asleep.
func TestNoAllocation(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector itself allocates")
	}
	_, a, b := ends(t, small)
	frames, parts := make([][]byte, 8), [][]byte{make([]byte, 30), make([]byte, 2000)}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if err := errors.Join(a.Transmit(nil, parts), a.Flush(), b.Wait()); err != nil {
			t.Error(err)
		}
		if n, err := b.Receive(frames); n != 1 || err != nil {
			t.Error(n, err)
		}
		b.Release()
		b.Wake()
		if err := b.Wait(); err != nil {
			t.Error(err)
		}
	}))
}

// TestDrained waits until the other side has released all that was sent.
func TestDrained(t *testing.T) {
	a, b := ordinaryEnds(t, 64, 64, ^uint32(0)-10)
	done, err := a.Drained()
	require.NoError(t, err)
	require.True(t, done, "nothing was sent")
	for range 20 {
		require.NoError(t, a.Transmit(nil, [][]byte{make([]byte, 60)}))
	}
	require.NoError(t, a.Flush())
	drained := make(chan error, 1)
	go func() {
		for {
			done, err := a.Drained()
			if done || err != nil {
				drained <- err
				return
			}
			if err := a.DrainWait(); err != nil {
				drained <- err
				return
			}
		}
	}()
	batch := make([][]byte, 3)
	for total := 0; total < 20; {
		select {
		case <-drained:
			t.Fatal("drained after", total)
		default:
		}
		n, err := b.Receive(batch)
		require.NoError(t, err)
		total += n
		b.Release()
	}
	require.NoError(t, <-drained)
	require.NoError(t, a.Close())
	_, err = a.Drained()
	require.ErrorIs(t, err, net.ErrClosed)
}

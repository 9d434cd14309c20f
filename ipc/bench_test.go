package ipc

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// benchFrames are the lengths that benchmarks use.
var benchFrames = []int{64, 1514, 9014, 65549}

// BenchmarkRing is the cost of one frame on both sides, Transmit to Release,
// with no second CPU and nobody asleep.
func BenchmarkRing(b *testing.B) {
	for _, n := range benchFrames {
		for _, batch := range []int{1, 8, 32} {
			if n*batch > 1<<20 {
				continue // more than the ring holds
			}
			b.Run(fmt.Sprintf("%dB/batch%d", n, batch), func(b *testing.B) {
				_, tx, rx := ends(b, Options{})
				ringLoop(b, tx, rx, n, batch)
			})
		}
	}
}

func ringLoop(b *testing.B, tx, rx *End, n, batch int) {
	var hdr [VnetHdrLen]byte
	parts := [][]byte{make([]byte, n)}
	frames := make([][]byte, 64)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := tx.Transmit(&hdr, parts); err != nil {
			b.Fatal(err)
		}
		if (i+1)%batch != 0 {
			continue
		}
		if err := tx.Flush(); err != nil {
			b.Fatal(err)
		}
		if got, err := rx.Receive(frames); err != nil || got != batch {
			b.Fatal(got, err)
		}
		rx.Release()
	}
}

// BenchmarkStream is one producer and one consumer on a CPU each. Both spin, or
// sleep whenever there is nothing to do.
func BenchmarkStream(b *testing.B) {
	for _, n := range benchFrames {
		for _, mode := range []string{"spin", "sleep"} {
			b.Run(fmt.Sprintf("%dB/%s", n, mode), func(b *testing.B) {
				_, tx, rx := ends(b, Options{})
				stream(b, tx, rx, n, mode == "sleep")
			})
		}
	}
}

func stream(b *testing.B, tx, rx *End, n int, sleep bool) {
	var hdr [VnetHdrLen]byte
	parts := [][]byte{make([]byte, n)}
	b.SetBytes(int64(n))
	b.ReportAllocs()
	done := make(chan error, 1)
	total := b.N
	go func() { done <- drain(rx, total, sleep) }()
	b.ResetTimer()
	for i := range total {
		err := tx.Transmit(&hdr, parts)
		for ; errors.Is(err, ErrFull); err = tx.Transmit(&hdr, parts) {
			require.NoError(b, tx.Flush())
			if sleep {
				require.NoError(b, tx.TransmitWait())
			}
		}
		if err != nil {
			b.Fatal(err)
		}
		if i%32 == 31 || i == total-1 {
			if err := tx.Flush(); err != nil {
				b.Fatal(err)
			}
		}
	}
	require.NoError(b, <-done)
}

// drain receives total frames, asleep whenever there is none, or spinning.
func drain(rx *End, total int, sleep bool) error {
	var frames [64][]byte
	for got := 0; got < total; {
		n, err := rx.Receive(frames[:])
		if err != nil {
			return err
		}
		got += n
		rx.Release()
		if n == 0 && sleep {
			if err := rx.Wait(); err != nil {
				return err
			}
		}
	}
	return nil
}

// BenchmarkRoundTrip is one frame of 64 bytes there and back again between two
// goroutines, which spin or sleep. One way is half of it.
func BenchmarkRoundTrip(b *testing.B) {
	for _, mode := range []string{"spin", "sleep"} {
		b.Run(mode, func(b *testing.B) {
			_, near, far := ends(b, Options{})
			total := b.N
			done := make(chan error, 1)
			go func() { done <- echo(far, total, mode == "sleep") }()
			var hdr [VnetHdrLen]byte
			parts := [][]byte{make([]byte, 64)}
			took := make([]time.Duration, total)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range total {
				start := time.Now()
				err := errors.Join(near.Transmit(&hdr, parts), near.Flush(), drain(near, 1, mode == "sleep"))
				if err != nil {
					b.Fatal(err)
				}
				took[i] = time.Since(start)
			}
			b.StopTimer()
			require.NoError(b, <-done)
			slices.Sort(took)
			b.ReportMetric(float64(took[total/2].Nanoseconds()), "p50-ns")
			b.ReportMetric(float64(took[total*99/100].Nanoseconds()), "p99-ns")
		})
	}
}

func echo(e *End, total int, sleep bool) error {
	var hdr [VnetHdrLen]byte
	parts := [][]byte{make([]byte, 64)}
	for range total {
		if err := drain(e, 1, sleep); err != nil {
			return err
		}
		if err := e.Transmit(&hdr, parts); err != nil {
			return err
		}
		if err := e.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkForward is the cost of one frame in a process between two rings that
// copies all of it before it looks at it, or only the first 128 bytes. It
// includes one copy into the first ring.
func BenchmarkForward(b *testing.B) {
	for _, n := range benchFrames {
		for _, mode := range []string{"copy", "view"} {
			b.Run(fmt.Sprintf("%dB/%s", n, mode), func(b *testing.B) {
				_, src, in := ends(b, Options{})
				_, out, dst := ends(b, Options{})
				parts, last := [][]byte{make([]byte, n)}, make([]View, 1)
				pass := forwarder(in, out, mode == "view")
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					if err := errors.Join(src.Transmit(nil, parts), src.Flush(), pass()); err != nil {
						b.Fatal(err)
					}
					if k, err := dst.ReceiveViews(last, 0); k != 1 || err != nil {
						b.Fatal(k, err)
					}
					dst.Release()
				}
			})
		}
	}
}

// forwarder returns a function that passes one frame on.
func forwarder(in, out *End, view bool) func() error {
	frames, views, parts := make([][]byte, 1), make([]View, 1), make([][]byte, 3)
	return func() (err error) {
		if view {
			_, err = in.ReceiveViews(views, 128)
			frames[0] = views[0].Head
			parts[1], parts[2] = views[0].Tail[0], views[0].Tail[1]
		} else {
			_, err = in.Receive(frames)
		}
		parts[0] = frames[0][VnetHdrLen:]
		err = errors.Join(err, out.Transmit((*[VnetHdrLen]byte)(frames[0]), parts), out.Flush())
		in.Release()
		return err
	}
}

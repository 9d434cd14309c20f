package direct_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/direct"
)

// BenchmarkReceive measures Receive and Release of frames that wait already, in
// batches of 64; filling the queue is not measured.
func BenchmarkReceive(b *testing.B) {
	for _, driver := range drivers {
		b.Run(driver, func(b *testing.B) {
			enter(b)
			mac, peer := wire(b, 1500, 1)
			q := open(b, direct.Options{NIC: nicName, Driver: driver}).Queues()[0]
			s := newStation(b, peerName)
			f := frame(mac.HardwareAddr, peer.HardwareAddr, 64, 1)
			batch := make([][]byte, 64)
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N; left > 0; {
				b.StopTimer()
				n := min(left, 1024)
				for range n {
					s.send(f)
				}
				b.StartTimer()
				for n > 0 {
					got, err := q.Receive(batch)
					if err != nil || got == 0 {
						b.Fatalf("%d frames, %v", got, err)
					}
					q.Release()
					n, left = n-got, left-got
				}
			}
		})
	}
}

// BenchmarkTransmit measures Transmit and, every 32 frames, Flush.
func BenchmarkTransmit(b *testing.B) {
	for _, driver := range drivers {
		for _, size := range []int{64, 1500} {
			b.Run(driver+"/"+map[int]string{64: "64", 1500: "1500"}[size], func(b *testing.B) {
				enter(b)
				mac, peer := wire(b, 1500, 1)
				q := open(b, direct.Options{NIC: nicName, Driver: driver}).Queues()[0]
				f := frame(peer.HardwareAddr, mac.HardwareAddr, size, 1)
				parts := [][]byte{f[:54], f[54:]}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					send(b, q, parts)
					if i%32 == 31 {
						flush(b, q)
					}
				}
				flush(b, q)
				b.ReportMetric(float64(q.Stats().Syscalls)/float64(b.N), "syscalls/op")
			})
		}
	}
}

// BenchmarkTransmitQueue is Transmit without the device: what a frame costs
// until the kick, which is not measured.
func BenchmarkTransmitQueue(b *testing.B) {
	enter(b)
	mac, peer := wire(b, 1500, 1)
	q := open(b, direct.Options{NIC: nicName, Driver: "afxdp"}).Queues()[0]
	parts := [][]byte{frame(peer.HardwareAddr, mac.HardwareAddr, 64, 1)}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%256 == 0 {
			b.StopTimer()
			flush(b, q)
			b.StartTimer()
		}
		send(b, q, parts)
	}
}

func send(b *testing.B, q direct.Queue, parts [][]byte) {
	for {
		err := q.Transmit(nil, parts)
		if err == nil {
			return
		}
		if !errors.Is(err, direct.ErrFull) {
			b.Fatal(err)
		}
		flush(b, q)
	}
}

func flush(b *testing.B, q direct.Queue) {
	for {
		err := q.Flush()
		if err == nil {
			return
		}
		if !errors.Is(err, direct.ErrFull) {
			b.Fatal(err)
		}
		require.NoError(b, q.TransmitWait())
	}
}

// TestNoAllocation: in steady state no call of the data path allocates.
func TestNoAllocation(t *testing.T) {
	for _, driver := range drivers {
		enter(t)
		mac, peer := wire(t, 1500, 1)
		q := open(t, direct.Options{NIC: nicName, Driver: driver}).Queues()[0]
		s := newStation(t, peerName)
		in := frame(mac.HardwareAddr, peer.HardwareAddr, 300, 1)
		out := [][]byte{frame(peer.HardwareAddr, mac.HardwareAddr, 300, 1)}
		hdr := new([direct.VnetHdrLen]byte)
		batch := make([][]byte, 16)
		n := testing.AllocsPerRun(500, func() {
			s.send(in)
			for got := 0; got == 0; {
				if q.Wait() != nil {
					t.Error("wait")
				}
				got, _ = q.Receive(batch)
			}
			q.Release()
			if q.Transmit(hdr, out) != nil || q.Flush() != nil {
				t.Error("transmit")
			}
		})
		require.Zero(t, n, driver)
	}
}

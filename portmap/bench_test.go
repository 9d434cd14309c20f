package portmap

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"junction/portmap/table"
)

func bind(b *testing.B, m *Map, r Request) {
	if _, err := m.Bind(1, r); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBindClose is what a program that binds a known port costs the monitor.
func BenchmarkBindClose(b *testing.B) {
	m := newMap1(b, Options{})
	b.ReportAllocs()
	for b.Loop() {
		bind(b, m, Request{Socket: 1, Addr: one[0], Port: 80})
		if err := m.Close(1, 1, 0); err != nil {
			b.Fatal(err)
		}
		m.Changes()
	}
}

// BenchmarkEphemeral binds port 0 and closes, with some of the 28,232 ports taken.
func BenchmarkEphemeral(b *testing.B) {
	for _, percent := range []int{0, 50, 99} {
		b.Run(fmt.Sprintf("%d%%", percent), func(b *testing.B) {
			m := newMap1(b, Options{})
			for i := range 28232 * percent / 100 {
				bind(b, m, Request{Socket: Socket(i + 2), Addr: one[0]})
			}
			m.Changes()
			b.ReportAllocs()
			for b.Loop() {
				bind(b, m, Request{Socket: 1, Addr: one[0]})
				if err := m.Close(1, 1, 0); err != nil {
					b.Fatal(err)
				}
				m.Changes()
			}
		})
	}
}

// BenchmarkTimeWait keeps 10,000 ports in TIME_WAIT, one coming as one goes.
func BenchmarkTimeWait(b *testing.B) {
	m := newMap1(b, Options{})
	now := m.now
	b.ReportAllocs()
	for b.Loop() {
		now++
		if err := m.Advance(now); err != nil {
			b.Fatal(err)
		}
		bind(b, m, Request{Socket: 1, Addr: one[0], Purpose: ForConnect})
		if err := m.Close(1, 1, 10_000); err != nil {
			b.Fatal(err)
		}
		m.Changes()
	}
}

// BenchmarkReusePort binds the 1001st listener of a port.
func BenchmarkReusePort(b *testing.B) {
	m := newMap1(b, Options{})
	r := Request{Addr: one[0], Port: 80, Options: SocketOptions{ReusePort: true}}
	for i := range 1000 {
		r.Socket = Socket(i + 2)
		bind(b, m, r)
	}
	r.Socket = 1
	b.ReportAllocs()
	for b.Loop() {
		bind(b, m, r)
		if err := m.Close(1, 1, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLeave ends leases with 1000 ports; per port.
func BenchmarkLeave(b *testing.B) {
	m := newMap1(b, Options{})
	b.ReportAllocs()
	for n := 0; n < b.N; n += 1000 {
		b.StopTimer()
		for i := range min(1000, b.N-n) {
			bind(b, m, Request{Socket: Socket(i), Addr: netip.IPv4Unspecified()})
		}
		m.Changes()
		b.StartTimer()
		m.Leave(1)
		b.StopTimer()
		require.NoError(b, m.Join(1, Lease{Addrs: one, Mode: table.Server}))
	}
}

// BenchmarkRestore takes a table with 28,232 owned ports over.
func BenchmarkRestore(b *testing.B) {
	m := newMap1(b, Options{})
	for i := range 28232 {
		bind(b, m, Request{Socket: Socket(i), Addr: one[0]})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Restore(m.opt, m.mirror); err != nil {
			b.Fatal(err)
		}
	}
}

package main

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"junction/internal/monitor"
	"junction/netserver"
)

// TestSince: rates are per second, and counters that began anew count from 0.
func TestSince(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	account := func(in, bytes, dropped uint64) netserver.AccountStats {
		return netserver.AccountStats{Account: netserver.Account{In: in, InBytes: bytes}, Drops: map[string]uint64{"ring_full": dropped, "short": 1}}
	}
	picture := func(at time.Time, in uint64, cpu time.Duration) tally {
		return tally{
			at: at, serverPID: 9, cpu: map[int]time.Duration{9: cpu, 10: 2 * cpu},
			instances: []monitor.InstanceStatus{{ID: 1, Name: "idle", PID: 11}, {ID: 2, Name: "busy", PID: 10}},
			traffic: netserver.Stats{Uplink: account(in, 10*in, in), Ports: map[uint32]netserver.PortStats{
				2: {Name: "busy", AccountStats: account(2*in, 20*in, 0), ToInstance: in, ToInstanceBytes: 7 * in},
			}},
		}
	}
	now := picture(at.Add(2*time.Second), 300, 1500*time.Millisecond)
	got := now.since(picture(at, 100, 500*time.Millisecond))
	require.Equal(t, topTable{Schema: 1, IntervalSeconds: 2,
		Server: topRow{Name: "netserver", PID: 9, CPUPercent: 50, ReceivedPPS: 100, ReceivedBytes: 1000, DropsPPS: 100},
		Instances: []topRow{
			{ID: 2, Name: "busy", PID: 10, CPUPercent: 100, SentPPS: 200, SentBytes: 2000, ReceivedPPS: 100, ReceivedBytes: 700},
			{ID: 1, Name: "idle", PID: 11},
		}}, got)
	anew := now.since(picture(at, 1000, 5*time.Second))
	require.EqualValues(t, 150, anew.Server.ReceivedPPS)
	require.Zero(t, anew.Server.CPUPercent)
	var text bytes.Buffer
	require.NoError(t, tabulate(&text, func(w io.Writer) { writeTop(w, got) }))
	require.Contains(t, text.String(), "busy")
}

func TestTracedLine(t *testing.T) {
	f := netserver.Traced{Protocol: "tcp", Bytes: 66, Decision: "flood", Hops: []netserver.Hop{{To: 1}, {To: 7, Drop: "ring_full"}},
		SourceMAC: "02:00:00:00:00:01", DestinationMAC: "02:00:00:00:00:02"}
	line := withNames(f, map[uint32]string{0: "wire", 1: "web"})
	require.Contains(t, line.line(), "wire: tcp 02:00:00:00:00:01 > 02:00:00:00:00:02, 66 bytes: flood -> web -> instance 7 (dropped: ring_full)")
}

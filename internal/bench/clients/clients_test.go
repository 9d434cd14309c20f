package clients

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the clients really printed on Debian 12.
const (
	redisOut = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","93749.99","0.033","0.008","0.031","0.047","0.063","3.871"
"GET","100000.00","0.031","0.008","0.031","0.047","0.064","0.351"
`
	wrkOut = `Running 1s test @ http://127.0.0.1:7999/nosuch
  1 threads and 10 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.51ms    2.81ms  21.99ms   87.50%
    Req/Sec     1.77k   456.30     2.51k    80.00%
  Latency Distribution
     50%  236.00us
     75%    4.58ms
     90%    7.07ms
     99%    1.20s 
  1760 requests in 1.00s, 0.87MB read
  Socket errors: connect 1, read 20, write 300, timeout 4000
  Non-2xx or 3xx responses: 1760
Requests/sec:   1758.67
Transfer/sec:      0.87MB
`
	iperfOut  = `{"end":{"sum_sent":{"bytes":2502033408,"bits_per_second":20014566025.8878},"sum_received":{"bytes":2496921600,"bits_per_second":19925057641.0,"sender":true}}}`
	iperfFail = `{"start":{"connected":[]},"intervals":[],"end":{},"error":"unable to connect to server: Connection refused"}`
)

func TestRedisBenchmark(t *testing.T) {
	got, err := ParseRedisBenchmark(redisOut)
	require.NoError(t, err)
	require.Equal(t, map[string]Result{
		"SET": {PerSecond: 93749.99, P50: 31, P99: 63},
		"GET": {PerSecond: 100000, P50: 31, P99: 64},
	}, got)
	for _, bad := range []string{"", redisOut[:60], `"test","rps"` + "\n" + `"GET","1"`, `ERR value`, redisOut + "\"GET\",\"1\"\n", redisOut[:150] + "\"GET\",\"NaN\",\"0\",\"0\",\"0\",\"0\",\"0\",\"0\"\n"} {
		_, err := ParseRedisBenchmark(bad)
		require.ErrorIs(t, err, ErrOutput, "%q", bad)
	}
}

func TestWrk(t *testing.T) {
	got, err := ParseWrk(wrkOut)
	require.NoError(t, err)
	require.Equal(t, Result{Requests: 1760, Errors: 6081, PerSecond: 1758.67, P50: 236, P99: 1.2e6}, got)
	for _, bad := range []string{"", wrkOut[:200], wrkOut[300:], "unable to connect to 127.0.0.1:7997 Connection refused\n"} {
		_, err := ParseWrk(bad)
		require.ErrorIs(t, err, ErrOutput, "%q", bad)
	}
}

// Errors that wrk words in a new way are not taken for none.
func TestWrkUnknownErrors(t *testing.T) {
	_, err := ParseWrk("  Latency Distribution\n     50%  1.00us\n     99%  2.00us\n  5 requests in 1.00s, 0.87MB read\n  Socket errors: tls 4\nRequests/sec:   5.0\n")
	require.ErrorIs(t, err, ErrOutput)
}

func TestIperf(t *testing.T) {
	got, err := ParseIperf([]byte(iperfOut))
	require.NoError(t, err)
	require.Equal(t, 19925057641.0, got)
	_, err = ParseIperf([]byte(iperfFail))
	require.ErrorContains(t, err, "Connection refused")
	for _, bad := range []string{"", "{}", "{", `{"end":{"sum_received":{"bytes":0,"bits_per_second":0}}}`, `[]`} {
		_, err := ParseIperf([]byte(bad))
		require.ErrorIs(t, err, ErrOutput, "%q", bad)
	}
}

func TestUDPPing(t *testing.T) {
	rtts, lost, err := ParseUDPPing("23500\nlost\n24000\n")
	require.NoError(t, err)
	require.Equal(t, []float64{23.5, 24}, rtts)
	require.EqualValues(t, 1, lost)
	for _, bad := range []string{"x\n", "-5\n", "1\n\n", "18446744073709551615\n"} {
		_, _, err := ParseUDPPing(bad)
		require.ErrorIs(t, err, ErrOutput, "%q", bad)
	}
}

func TestMicro(t *testing.T) {
	op, ns, err := ParseMicro("handoff_pipe 8080.81")
	require.NoError(t, err)
	require.Equal(t, "handoff_pipe", op)
	require.Equal(t, 8080.81, ns)
	for _, bad := range []string{"", "getppid", "getppid ", " 5", "getppid 0.00", "getppid -1", "getppid NaN", "getppid 1 2", "micro: fork: Cannot allocate memory"} {
		_, _, err := ParseMicro(bad)
		require.ErrorIs(t, err, ErrOutput, "%q", bad)
	}
}

func TestNbodyEnd(t *testing.T) {
	for _, line := range []string{"end -0.00049367647678926884", "end -4.9367647678926884E-4"} { // C's, Java's
		energy, err := ParseNbodyEnd(line)
		require.NoError(t, err)
		require.Equal(t, -0.00049367647678926884, energy)
	}
	for _, bad := range []string{"", "start", "end", "end ", "end nan", "end -Inf", "end 1", "end -1 ", "end -1e999"} {
		_, err := ParseNbodyEnd(bad)
		require.ErrorIs(t, err, ErrOutput, "%q", bad)
	}
}

const netpipeOut = "      64 105.241521   0.00000464\n"

func TestNetpipe(t *testing.T) {
	bps, seconds, err := ParseNetpipe(netpipeOut, 64)
	require.NoError(t, err)
	require.InDelta(t, 105241521, bps, 1)
	require.InDelta(t, 4.64e-6, seconds, 1e-12)
	for _, bad := range []string{"", "65 1 1", "64 0 1", "64 1 0", "64 1", "64 NaN 1", "64 1 1 1"} {
		_, _, err := ParseNetpipe(bad, 64)
		require.ErrorIs(t, err, ErrOutput, "%q", bad)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{redisOut, wrkOut, iperfOut, iperfFail, "1\nlost\n", "pipe 5.50", "end -1e-3", netpipeOut} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, out string) {
		if all, err := ParseRedisBenchmark(out); err == nil {
			for _, r := range all {
				check(t, r)
			}
		}
		if r, err := ParseWrk(out); err == nil {
			check(t, r)
		}
		if bps, err := ParseIperf([]byte(out)); err == nil {
			require.Positive(t, bps)
		}
		if op, ns, err := ParseMicro(out); err == nil {
			require.NotEmpty(t, op)
			require.Positive(t, ns)
		}
		if energy, err := ParseNbodyEnd(out); err == nil {
			require.Negative(t, energy)
			require.False(t, math.IsInf(energy, 0))
		}
		if bps, seconds, err := ParseNetpipe(out, 64); err == nil {
			require.Positive(t, bps)
			require.Positive(t, seconds)
		}
		if rtts, _, err := ParseUDPPing(out); err == nil {
			for _, r := range rtts {
				require.GreaterOrEqual(t, r, 0.0)
			}
		}
	})
}

// check requires that a result is one that can have been measured.
func check(t *testing.T, r Result) {
	t.Helper()
	require.GreaterOrEqual(t, r.PerSecond, 0.0)
	require.GreaterOrEqual(t, r.P50, 0.0)
	require.GreaterOrEqual(t, r.P99, 0.0)
}

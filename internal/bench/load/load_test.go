package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// within is how long anything here may take.
const within = time.Minute

// listen serves each connection in a goroutine of its own, and returns how to connect.
func listen(t *testing.T, serve func(net.Conn)) func(context.Context) (net.Conn, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		all.Wait()
	})
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
}

// lines answers every line by what answer returns, in two pieces; nil closes.
func lines(answer func() []byte) func(net.Conn) {
	return func(c net.Conn) {
		for in := bufio.NewReader(c); ; {
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
			a := answer()
			if a == nil {
				return
			}
			for _, part := range [][]byte{a[:len(a)/2], a[len(a)/2:]} {
				if _, err := c.Write(part); err != nil {
					return
				}
			}
		}
	}
}

var hello = Exchange{Request: []byte("hello\n"), Answer: []byte("good day\n")}

// Phases divide what the server has answered, and nothing is left out.
func TestPhases(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var answered atomic.Uint64
	dial := listen(t, lines(func() []byte { answered.Add(1); return hello.Answer }))
	l, err := Start(ctx, dial, 7, hello)
	require.NoError(t, err)
	defer l.Close()
	var requests uint64
	for n := range uint64(5) {
		require.NoError(t, l.Wait(ctx, 100*n))
		p := l.Mark()
		require.GreaterOrEqual(t, p.Requests, 100*n)
		require.LessOrEqual(t, p.Percentile(50), p.Percentile(99))
		require.LessOrEqual(t, p.Percentile(100), p.Took+within)
		if n > 0 {
			require.Positive(t, p.Percentile(0))
			require.Positive(t, p.Gap)
			require.InEpsilon(t, float64(p.Requests)/p.Took.Seconds(), p.Result().PerSecond, 1e-9)
		}
		requests += p.Requests
	}
	require.NoError(t, l.For(ctx, time.Millisecond))
	p, err := l.Stop()
	require.NoError(t, err)
	require.Zero(t, p.Errors)
	require.Equal(t, answered.Load(), requests+p.Requests)
	require.Error(t, l.For(ctx, within), "it has ended")
	require.Error(t, l.Wait(ctx, 1), "it has ended")
}

// Phases that are joined are as if there had been no mark between them.
func TestJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		durations := rapid.SliceOf(rapid.Map(rapid.Int64Range(0, 1e9), func(n int64) time.Duration { return time.Duration(n) }))
		var parts []Phase
		var whole Phase
		for range rapid.IntRange(0, 5).Draw(t, "parts") {
			p := Phase{Took: time.Second, Errors: 1, First: ErrAnswer, latencies: durations.Draw(t, "latencies")}
			p.Requests = uint64(len(p.latencies))
			whole.Requests += p.Requests
			whole.latencies = append(whole.latencies, p.latencies...)
			slices.Sort(p.latencies)
			parts = append(parts, p)
		}
		slices.Sort(whole.latencies)
		all := Join(parts...)
		require.Equal(t, whole.Requests, all.Requests)
		require.Equal(t, uint64(len(parts)), all.Errors)
		require.Equal(t, time.Duration(len(parts))*time.Second, all.Took)
		for _, percent := range []float64{0, 50, 99, 100} {
			require.Equal(t, whole.Percentile(percent), all.Percentile(percent))
		}
	})
}

// What is not answered rightly is an error, and names itself.
func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		answer []byte
		want   error
	}{
		"wrong":  {[]byte("good bye\n"), ErrAnswer},
		"longer": {[]byte("good day\n."), ErrAnswer},
		"closed": {nil, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			var served atomic.Uint64
			l, err := Start(ctx, listen(t, lines(func() []byte {
				if served.Add(1) > 100 {
					return c.answer
				}
				return hello.Answer
			})), 3, hello)
			require.NoError(t, err)
			defer l.Close()
			require.ErrorIs(t, l.Wait(ctx, 1e9), ErrAllLost)
			p, err := l.Stop()
			require.ErrorIs(t, err, c.want)
			require.ErrorIs(t, p.First, c.want)
			require.Equal(t, uint64(3), p.Errors, "each connection once")
		})
	}
}

// Close does not wait for a server that does not answer, Stop does.
func TestSilence(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	silent := make(chan struct{})
	asked := make(chan struct{}, 1)
	dial := listen(t, lines(func() []byte { asked <- struct{}{}; <-silent; return hello.Answer }))
	l, err := Start(ctx, dial, 1, hello)
	require.NoError(t, err)
	l.Close()
	p := l.Mark()
	require.Zero(t, p.Requests)
	require.Zero(t, p.Errors, "a request that was given up is no error")

	<-asked
	l, err = Start(ctx, dial, 1, hello)
	require.NoError(t, err)
	defer l.Close()
	<-asked
	stopped := make(chan Phase)
	go func() { p, _ := l.Stop(); stopped <- p }()
	close(silent)
	p = <-stopped
	require.Equal(t, uint64(1), p.Requests)
	require.Zero(t, p.Errors)
}

func TestStartRefuses(t *testing.T) {
	ctx := t.Context()
	_, err := Start(ctx, nil, 1, Exchange{Request: []byte("x")})
	require.ErrorIs(t, err, errEmpty)
	broken := errors.New("broken")
	good, n := listen(t, lines(func() []byte { return hello.Answer })), 0
	_, err = Start(ctx, func(ctx context.Context) (net.Conn, error) {
		if n++; n == 3 {
			return nil, broken
		}
		return good(ctx)
	}, 4, hello)
	require.ErrorIs(t, err, broken)
	_, err = Start(ctx, func(context.Context) (net.Conn, error) {
		c, _ := net.Pipe()
		return c, nil
	}, 1, hello)
	require.ErrorContains(t, err, "no TCP connection")
}

func TestOnce(t *testing.T) {
	answer := hello.Answer
	c, err := listen(t, lines(func() []byte { return answer }))(t.Context())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, hello.Once(c))
	require.NoError(t, hello.Once(c))
	wrong := Exchange{Request: hello.Request, Answer: []byte("good bye\n")}
	require.ErrorIs(t, wrong.Once(c), ErrAnswer)
	longer := Exchange{Request: []byte("none"), Answer: []byte("x")}
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	require.Error(t, longer.Once(c))
}

// A server's pages are compared to the last byte, but for the date.
func TestHTTP(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	body := []byte(strings.Repeat("0123456789", 3000))
	var at atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Unix(at.Add(1e5), 0).UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		if r.URL.Path != "/file" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write(body)
	}))
	defer s.Close()
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}
	ask := func(path string, body []byte) (Exchange, error) {
		c, err := dial(ctx)
		require.NoError(t, err)
		defer c.Close()
		return HTTP(c, "x", path, body)
	}
	_, err := ask("/missing", body)
	require.ErrorIs(t, err, ErrLearn)
	_, err = ask("/file", body[1:])
	require.ErrorIs(t, err, ErrLearn)
	_, err = ask("/file", append(bytes.Clone(body[1:]), '0'))
	require.ErrorIs(t, err, ErrLearn)
	e, err := ask("/file", body)
	require.NoError(t, err)
	require.Positive(t, e.To-e.From)
	l, err := Start(ctx, dial, 4, e)
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, l.Wait(ctx, 50))
	p, err := l.Stop()
	require.NoError(t, err)
	require.NoError(t, p.First)
	require.Zero(t, p.Errors)
}

// An answer is right or wrong however it is cut, and only outside of what varies.
func TestHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Exchange{Answer: rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "answer")}
		e.From = rapid.IntRange(0, len(e.Answer)).Draw(t, "from")
		e.To = rapid.IntRange(e.From, len(e.Answer)).Draw(t, "to")
		got := bytes.Clone(e.Answer)
		changed := rapid.IntRange(0, len(got)-1).Draw(t, "changed")
		got[changed] ^= rapid.Byte().Draw(t, "bits")
		right := got[changed] == e.Answer[changed] || changed >= e.From && changed < e.To
		all := true
		for at := 0; at < len(got); {
			n := rapid.IntRange(1, len(got)-at).Draw(t, "n")
			all = all && e.holds(at, got[at:at+n])
			at += n
		}
		require.Equal(t, right, all)
		require.False(t, e.holds(len(got)-1, []byte{got[len(got)-1], 0}), "more than there is")
	})
}

// What a server sends first is not trusted.
func FuzzLearn(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\r\nDate:"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		body := []byte("abc")
		answer, err := learn(bytes.NewReader(raw), body)
		if err != nil {
			return
		}
		require.True(t, bytes.HasPrefix(raw, answer))
		from, to := date(answer[:len(answer)-len(body)])
		require.LessOrEqual(t, from, to)
		require.LessOrEqual(t, to, len(answer)-len(body))
	})
}

// An answer costs no allocation.
func BenchmarkLoad(b *testing.B) {
	var all sync.WaitGroup
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer all.Wait()
	defer l.Close()
	all.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 64)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := c.Write(hello.Answer); err != nil {
				return
			}
		}
	})
	ld, err := Start(b.Context(), func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}, 1, hello)
	require.NoError(b, err)
	defer ld.Close()
	b.ReportAllocs()
	b.ResetTimer()
	require.NoError(b, ld.Wait(b.Context(), uint64(b.N)))
}

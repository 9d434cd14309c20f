package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// switchLoad is what clients do to an instance while it is switched. All that
// comes back is compared.
type switchLoad struct {
	name string
	ip   netip.Addr // the instance's
	// start starts the instance, which is named "it", and the clients, and returns
	// when they have begun.
	start func(t *testing.T, r *rig, l *running, ip netip.Addr)
	exit  int // the program's exit code after SIGTERM
}

// running is a load at work.
type running struct {
	gaps  gaps
	done  atomic.Uint64 // answers, datagrams or pieces of data
	ended atomic.Bool   // set: clients end when the present answer has come
	wg    sync.WaitGroup
	it    *instance
	// sum adds what the log is to say, when all have ended.
	sum func() string
}

func (l *running) stop() {
	l.ended.Store(true)
	l.wg.Wait()
}

var switchLoads = []switchLoad{
	{"redis", addr4, startRedisLoad, 0},
	{"dedicated", netip.MustParseAddr("198.18.0.130"), startRedisLoad, 0},
	{"bulk", addr4, startBulkLoad, 143},
	{"nginx", addr4, startNginxLoad, 0},
	{"udp", addr4, startUDPLoad, 143},
}

// startRedisLoad sets and gets values by eight connections.
func startRedisLoad(t *testing.T, r *rig, l *running, ip netip.Addr) {
	flags := []string{"--name", "it"}
	if ip != addr4 {
		flags = append(flags, "--ip", ip.String())
	}
	l.it = r.start(flags, need(t, "redis-server"), "--protected-mode", "no", "--save", "")
	l.it.await("Ready to accept connections")
	const connections = 8
	for n := range connections {
		c := newRESP(r.mustDial(netip.AddrPortFrom(ip, 6379), 2*time.Hour))
		l.client(t, func(k int) error { return setAndGet(c, (n+k*connections)%10_000, 1) })
	}
}

// client is one that asks again and again, until the load ends.
func (l *running) client(t *testing.T, ask func(n int) error) {
	l.wg.Go(func() {
		s := l.gaps.track()
		for n := 0; !l.ended.Load(); n++ {
			if err := ask(n); err != nil {
				t.Errorf("request %d: %v", n, err)
				return
			}
			l.done.Add(1)
			s.event()
		}
	})
}

// startNginxLoad uses 200 connections without pause, and beside them 1,000 that
// are used once more when all is over.
func startNginxLoad(t *testing.T, r *rig, l *running, ip netip.Addr) {
	const idle, busy = 1000, 200
	var addr netip.AddrPort
	l.it, addr = r.startServer(t, "nginx", "--name", "it")
	conns := make([]*bufio.ReadWriter, idle+busy)
	for n := range conns {
		c := r.mustDial(addr, 2*time.Hour)
		conns[n] = bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
		require.NoError(t, getFile(conns[n]))
	}
	for _, c := range conns[idle:] {
		l.client(t, func(int) error { return getFile(c) })
	}
	l.sum = func() string {
		for n, c := range conns[:idle] {
			require.NoError(t, getFile(c), "idle connection %d", n)
		}
		return fmt.Sprintf("%d idle connections go on", idle)
	}
}

// getFile asks for a file of 100 bytes on a connection that stays.
func getFile(c *bufio.ReadWriter) error {
	if _, err := c.WriteString("GET /file-100 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.Reader, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(got, pattern(100, 100)) {
		return fmt.Errorf("%s, %q: %w", resp.Status, got, err)
	}
	return nil
}

// startBulkLoad sends data without end both ways, by one connection each.
func startBulkLoad(t *testing.T, r *rig, l *running, ip netip.Addr) {
	var addr netip.AddrPort
	l.it, addr = r.startServer(t, "go", "--name", "it")
	client := r.http()
	client.Timeout = 0
	var down, up int64
	l.wg.Go(func() {
		var err error
		if down, err = l.download(client, addr); err != nil {
			t.Errorf("from the instance, after %d bytes: %v", down, err)
		}
	})
	l.wg.Go(func() {
		var err error
		if up, err = l.upload(client, addr); err != nil {
			t.Errorf("to the instance, after %d bytes: %v", up, err)
		}
	})
	l.sum = func() string { return fmt.Sprintf("%d MB from the instance, %d MB to it", down>>20, up>>20) }
}

// download compares a body without end with what it must be, byte for byte, and
// their SHA-256.
func (l *running) download(client *http.Client, addr netip.AddrPort) (n int64, err error) {
	const seed = 7
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url(addr, fmt.Sprintf("data?seed=%d&n=%d", seed, int64(1)<<50)), nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	s, data := l.gaps.track(), stream(seed)
	got, want, sum := make([]byte, 64<<10), make([]byte, 64<<10), sha256.New()
	for !l.ended.Load() {
		k, err := resp.Body.Read(got)
		if err != nil {
			return n, err
		}
		if _, err := io.ReadFull(data, want[:k]); err != nil {
			return n, err
		}
		if !bytes.Equal(got[:k], want[:k]) {
			return n, errors.New("the data differs")
		}
		sum.Write(got[:k])
		n += int64(k)
		l.done.Add(1)
		s.event()
	}
	return n, nil
}

// upload posts a body without end; the instance answers with its SHA-256.
func (l *running) upload(client *http.Client, addr netip.AddrPort) (int64, error) {
	b := &endless{l: l, s: l.gaps.track(), data: stream(8)}
	sum := sha256.New()
	resp, err := client.Post(url(addr, "sha256"), "application/octet-stream", io.TeeReader(b, sum))
	if err != nil {
		return b.n, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return b.n, err
	}
	if want := fmt.Sprintf("%x %d", sum.Sum(nil), b.n); strings.TrimSpace(string(got)) != want {
		return b.n, fmt.Errorf("the instance has %q, sent was %q", got, want)
	}
	return b.n, nil
}

// endless is data that ends with the load.
type endless struct {
	l    *running
	s    *track
	data io.Reader
	n    int64
}

func (b *endless) Read(p []byte) (int, error) {
	b.s.event()
	if b.l.ended.Load() {
		return 0, io.EOF
	}
	n, err := b.data.Read(p)
	b.n += int64(n)
	b.l.done.Add(1)
	return n, err
}

// startUDPLoad sends numbered datagrams to an echo server, at half of the rate
// that they can come and go at.
func startUDPLoad(t *testing.T, r *rig, l *running, ip netip.Addr) {
	l.it = r.startNamed("it", guest, "udpecho", ":7")
	l.it.await("ready")
	c, err := r.Client.ListenPacket("udp4", "198.18.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	n := &numbered{l: l, conn: c.(*net.UDPConn), to: netip.AddrPortFrom(addr4, 7), window: make(chan struct{}, 100)}
	require.NoError(t, n.conn.SetReadBuffer(4<<20))
	n.start(t)
	// The path's capacity.
	begun, before := time.Now(), uint64(0)
	require.Eventually(t, func() bool {
		if before == 0 {
			begun, before = time.Now(), l.done.Load()
		}
		return l.done.Load() > before+20_000 || time.Since(begun) > time.Second && l.done.Load() > before+100
	}, time.Minute, 10*time.Millisecond)
	rate := float64(l.done.Load()-before) / time.Since(begun).Seconds()
	n.pause.Store(int64(2 * float64(time.Second) / rate))
	l.sum = func() string {
		require.EqualValues(t, n.sent, n.received, "datagrams lost")
		require.Zero(t, n.twice, "datagrams that came twice")
		return fmt.Sprintf("capacity %.0f datagrams/s; %d sent, all came back; after a later one: %d in switches, %d in as much time without, %d otherwise, behind %d at most",
			rate, n.sent, n.late[inSwitch], n.late[without], n.late[between], n.behind)
	}
}

// numbered sends numbered datagrams to an echo server, as many at once as no
// queue on the way overflows with.
type numbered struct {
	l      *running
	conn   *net.UDPConn
	to     netip.AddrPort
	window chan struct{}
	pause  atomic.Int64 // nanoseconds from one datagram to the next

	sent, received, last uint64
	twice                int
	late                 [kinds]int      // overtaken, by kind of window
	behind               uint64          // numbers that one of them came behind another, at most
	seen                 [1 << 16]uint64 // number of the last that came, by its lower bits
}

// patience is how long nothing may come back.
const patience = time.Minute

func (n *numbered) start(t *testing.T) {
	sent := make(chan struct{})
	n.l.wg.Go(func() {
		defer close(sent)
		if err := n.send(); err != nil {
			t.Errorf("datagram %d: %v", n.sent, err)
		}
	})
	n.l.wg.Go(func() {
		if err := n.receive(sent); err != nil {
			t.Errorf("after %d datagrams: %v", n.received, err)
		}
	})
}

func (n *numbered) send() error {
	b := make([]byte, 200)
	due := time.Now()
	for !n.l.ended.Load() {
		if pause := time.Duration(n.pause.Load()); pause > 0 {
			due = due.Add(pause)
			if late := time.Since(due); late > time.Millisecond {
				due = due.Add(late) // it is not made good for
			} else if late < -time.Millisecond {
				time.Sleep(-late) // the rate
			}
		}
		select {
		case n.window <- struct{}{}:
		case <-time.After(patience):
			return fmt.Errorf("nothing has come back for %v", patience)
		}
		n.sent++
		binary.BigEndian.PutUint64(b, n.sent)
		if _, err := n.conn.WriteToUDPAddrPort(b, n.to); err != nil {
			return err
		}
	}
	return nil
}

// receive receives until all that was sent has come back.
func (n *numbered) receive(sent <-chan struct{}) error {
	b, progress, s := make([]byte, 2048), time.Now(), n.l.gaps.track()
	for {
		select {
		case <-sent:
			if n.received == n.sent {
				return nil
			}
		default:
		}
		if err := n.conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		k, _, err := n.conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, os.ErrDeadlineExceeded) && time.Since(progress) < patience {
			continue // perhaps it was the last
		}
		if err != nil || k != 200 {
			return fmt.Errorf("%d bytes: %w", k, err)
		}
		progress = time.Now()
		n.take(binary.BigEndian.Uint64(b))
		s.event()
	}
}

func (n *numbered) take(number uint64) {
	at := &n.seen[number%uint64(len(n.seen))]
	if *at == number {
		n.twice++
		return
	}
	if number < n.last {
		n.late[n.l.gaps.kind()]++
		n.behind = max(n.behind, n.last-number)
	}
	*at, n.last = number, max(number, n.last)
	n.received++
	n.l.done.Add(1)
	<-n.window
}

// gaps measures how long clients wait for what comes next. Time is divided into
// windows: switches, times as long without one to compare with, and what is in
// between. A wait counts for all windows that it has touched, whole, so that both
// kinds are measured alike.
type gaps struct {
	window atomic.Uint32 // the present one
	mu     sync.Mutex
	// +checklocks:mu
	longest []gap // by window
	// +checklocks:mu
	kinds []kind // of all windows but the first
	// +checklocks:mu
	clients int
}

// kind is one of windows.
type kind uint8

const (
	between kind = iota
	inSwitch
	without
	kinds
)

// begin begins the next window.
func (g *gaps) begin(k kind) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.kinds = append(g.kinds, k)
	g.window.Add(1)
}

// kind is that of the present window.
func (g *gaps) kind() kind {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.kinds) == 0 {
		return between
	}
	return g.kinds[len(g.kinds)-1]
}

// gap is a time in which nothing came.
type gap struct {
	time.Duration
	begun  time.Time
	client int // who waited: they are numbered as they begin
}

// track is of what one client receives.
type track struct {
	g      *gaps
	client int
	last   time.Time
	window uint32
}

func (g *gaps) track() *track {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clients++
	return &track{g: g, client: g.clients}
}

// event says that something has come.
func (s *track) event() {
	now, to := time.Now(), s.g.window.Load()
	from, last := s.window, s.last
	s.last, s.window = now, to
	if !last.IsZero() {
		s.g.note(from, to, gap{now.Sub(last), last, s.client})
	}
}

func (g *gaps) note(from, to uint32, d gap) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for uint32(len(g.longest)) <= to {
		g.longest = append(g.longest, gap{})
	}
	for w := from; w <= to; w++ {
		if g.longest[w].Duration < d.Duration {
			g.longest[w] = d
		}
	}
}

// of returns the longest gap of each window of a kind.
func (g *gaps) of(k kind) (all []gap) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, is := range g.kinds {
		if is != k {
			continue
		}
		var longest gap // none: nobody has waited until a later window
		if i+1 < len(g.longest) {
			longest = g.longest[i+1]
		}
		all = append(all, longest)
	}
	return all
}

func durations(gaps []gap) (d []time.Duration) {
	for _, g := range gaps {
		d = append(d, g.Duration)
	}
	return d
}

// tcpCounters are the client's kernel's, of its namespace.
func (r *rig) tcpCounters() map[string]int64 {
	r.t.Helper()
	all := make(map[string]int64)
	require.NoError(r.t, r.Client.Do(func() error {
		for _, name := range []string{"snmp", "netstat"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			lines := strings.Split(string(b), "\n")
			for i := 0; i+1 < len(lines); i += 2 {
				names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
				for k := 1; k < len(names); k++ {
					var v int64
					if _, err := fmt.Sscan(values[k], &v); err != nil {
						return fmt.Errorf("%s of %s: %w", names[k], name, err)
					}
					all[names[0]+names[k]] = v
				}
			}
		}
		return nil
	}))
	return all
}

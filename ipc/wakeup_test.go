package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// messagesVariable says how many messages TestNoLostWakeUp sends in all:
// `make stress-ring` sends 10^9.
const messagesVariable = "JUNCTION_RING_MESSAGES"

// stuck is how long nothing may move. A lost wake-up lasts for ever.
const stuck = 2 * time.Minute

// TestNoLostWakeUp sends numbered messages both ways, while all four sides
// sleep, spin and dawdle at random: each has nothing to do, or no room, again
// and again at arbitrary points of what the other does. All arrive in order.
func TestNoLostWakeUp(t *testing.T) {
	messages := uint64(2_000_000)
	if testing.Short() {
		messages = 200_000
	}
	if s := os.Getenv(messagesVariable); s != "" {
		var err error
		messages, err = strconv.ParseUint(s, 10, 62)
		require.NoError(t, err, messagesVariable)
	}
	const parts = 4 // two kinds of rings, two directions
	each := max(1, messages/parts)

	t.Run("one process, 16 buffers", func(t *testing.T) {
		a, b := ordinaryEnds(t, 16, 64, rand.Uint32())
		x, y := &talker{e: a, messages: each}, &talker{e: b, messages: each}
		watch(t, x.start(), y.start(), x, y)
		requireSlept(t, a.Stats())
		requireSlept(t, b.Stats())
	})
	t.Run("two processes", func(t *testing.T) {
		p, err := NewPair(small)
		require.NoError(t, err)
		defer p.Close()
		e, err := p.Attach(ServerSide)
		require.NoError(t, err)
		defer e.Close()
		child := startChild(t, p, InstanceSide, talkRole+strconv.FormatUint(each, 10))
		ended := make(chan error, 1)
		go func() { ended <- child.Wait() }()
		x := &talker{e: e, messages: each}
		watch(t, x.start(), ended, x)
		requireSlept(t, e.Stats())
	})
}

// requireSlept requires that both sides of an End slept and were woken: else
// nothing has been tested.
func requireSlept(t *testing.T, s Stats) {
	t.Helper()
	require.NotZero(t, s.RxSleeps)
	require.NotZero(t, s.TxSleeps)
	require.NotZero(t, s.Rings)
	t.Logf("%d messages each way, slept %d times for messages and %d times for room, rang %d times", s.TxPackets, s.RxSleeps, s.TxSleeps, s.Rings)
}

// watch waits until both have ended, and gives up when nothing moves.
func watch(t *testing.T, x, y <-chan error, talkers ...*talker) {
	t.Helper()
	before, since := uint64(0), time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for x != nil || y != nil {
		select {
		case err := <-x:
			require.NoError(t, err)
			x = nil
		case err := <-y:
			require.NoError(t, err)
			y = nil
		case <-tick.C:
			now := uint64(0)
			for _, k := range talkers {
				now += k.sent.Load() + k.received.Load()
			}
			if now != before {
				before, since = now, time.Now()
			}
			if time.Since(since) > stuck {
				for _, k := range talkers {
					t.Logf("sent %d, received %d of %d: %+v", k.sent.Load(), k.received.Load(), k.messages, k.e.Stats())
					_ = k.e.Close()
				}
				t.Fatalf("nothing has moved for %v", stuck)
			}
		}
	}
}

// talker sends and receives on one End, each in a goroutine.
type talker struct {
	e              *End
	messages       uint64
	sent, received atomic.Uint64
}

// start begins to talk. The channel delivers how it went.
func (k *talker) start() <-chan error {
	both, done := make(chan error, 2), make(chan error, 1)
	go func() { both <- k.send(newMood()) }()
	go func() { both <- k.receive(newMood()) }()
	go func() { done <- errors.Join(<-both, <-both) }()
	return done
}

func (k *talker) send(m *mood) error {
	var hdr [VnetHdrLen]byte
	parts := [][]byte{make([]byte, 54)}
	for seq := uint64(0); seq < k.messages; {
		for range m.upTo(64) {
			if seq == k.messages {
				break
			}
			binary.LittleEndian.PutUint64(hdr[:], seq)
			if err := k.put(&hdr, parts, m); err != nil {
				return fmt.Errorf("send %d: %w", seq, err)
			}
			seq++
		}
		if err := k.e.Flush(); err != nil {
			return err
		}
		k.sent.Store(seq)
		m.dawdle()
	}
	return nil
}

// put transmits one frame, and waits for room in one way or another.
func (k *talker) put(hdr *[VnetHdrLen]byte, parts [][]byte, m *mood) error {
	for {
		err := k.e.Transmit(hdr, parts)
		if !errors.Is(err, ErrFull) {
			return err
		}
		if err := k.e.Flush(); err != nil {
			return err
		}
		if m.upTo(4) == 1 {
			runtime.Gosched()
			continue
		}
		if err := k.e.TransmitWait(); err != nil {
			return err
		}
	}
}

func (k *talker) receive(m *mood) error {
	frames := make([][]byte, 64)
	for seq := uint64(0); seq < k.messages; {
		n, err := k.e.Receive(frames[:m.upTo(len(frames))])
		if err != nil {
			return fmt.Errorf("receive %d: %w", seq, err)
		}
		for _, f := range frames[:n] {
			if got := binary.LittleEndian.Uint64(f); got != seq {
				return fmt.Errorf("message %d instead of %d", got, seq)
			}
			seq++
		}
		k.e.Release()
		k.received.Store(seq)
		switch {
		case n > 0:
			m.dawdle()
		case m.upTo(4) == 1:
			runtime.Gosched()
		case seq < k.messages:
			if err := k.e.Wait(); err != nil {
				return err
			}
		}
	}
	return nil
}

// mood decides at random.
type mood struct {
	rng  *rand.PCG
	sink uint64
}

func newMood() *mood { return &mood{rng: rand.NewPCG(rand.Uint64(), rand.Uint64())} }

// upTo returns a number from 1 to n.
func (m *mood) upTo(n int) int { return 1 + int(m.rng.Uint64()%uint64(n)) }

// dawdle does nothing, yields, or computes for up to some microseconds: about
// as long as the other side takes to fall asleep or to wake.
func (m *mood) dawdle() {
	switch m.upTo(16) {
	case 1:
		runtime.Gosched()
	case 2, 3:
		for range m.upTo(4096) {
			m.sink = m.sink*31 + 7
		}
	}
}

// talkRole begins the role of a child that talks; the number of messages follows.
const talkRole = "talk "

// talkProcess is the other process of TestNoLostWakeUp.
func talkProcess(messages string) error {
	n, err := strconv.ParseUint(messages, 10, 64)
	if err != nil {
		return err
	}
	e, err := Attach(InstanceSide, [FilesPerEnd]int{3, 4, 5})
	if err != nil {
		return err
	}
	return <-(&talker{e: e, messages: n}).start()
}

package plugin

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	cs "junction/coresched"
	"junction/coresched/policies"
	"junction/ipc"
)

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) != "" {
		serveForTest()
		return
	}
	goleak.VerifyTestMain(m)
}

func drawMessage(t *rapid.T) cs.Message {
	return cs.Message{
		Type: cs.MessageType(rapid.Byte().Draw(t, "type")), Runnable: rapid.Bool().Draw(t, "runnable"), OnCPU: rapid.Bool().Draw(t, "oncpu"),
		Task: cs.Task(rapid.Uint32().Draw(t, "task")), Seq: cs.Seq(rapid.Uint32().Draw(t, "seq")), Agent: cs.Seq(rapid.Uint32().Draw(t, "agent")),
		CPU: cs.CPU(rapid.Int32().Draw(t, "cpu")), Home: cs.CPU(rapid.Int32().Draw(t, "home")),
		Runtime: cs.Time(rapid.Int64().Draw(t, "runtime")), At: cs.Time(rapid.Int64().Draw(t, "at")),
		Hints: cs.Hints{
			Deadline: cs.Time(rapid.Int64().Draw(t, "deadline")), Group: rapid.Uint32().Draw(t, "group"),
			Guaranteed: rapid.Uint16().Draw(t, "guaranteed"), Class: cs.Class(rapid.Byte().Draw(t, "class")), Nice: rapid.Int8().Draw(t, "nice"),
			Delay: cs.Time(rapid.Int64Range(0, int64(cs.MaxDelay)).Draw(t, "delay")),
		},
	}
}

func TestCodecRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b [messageSize]byte
		m, again := drawMessage(t), cs.Message{}
		putMessage(b[:], &m)
		getMessage(b[:], &again)
		require.Equal(t, m, again)
		x := cs.Txn{CPU: m.CPU, Task: m.Task, TaskSeq: m.Seq, AgentSeq: m.Agent}
		putTxn(b[:], &x)
		require.Equal(t, x, getTxn(b[:]))
		h := header{kindBatch, cs.Sync, rapid.IntRange(0, cs.MaxCPUs).Draw(t, "count"), m.Hints.Group, m.CPU}
		f := make([]byte, ipc.VnetHdrLen+headerSize+h.count*txnSize)
		h.put(f[ipc.VnetHdrLen:])
		got, body, err := parse(f)
		require.NoError(t, err)
		require.Equal(t, h, got)
		require.Len(t, body, h.count*txnSize)
		_, _, err = parse(f[:len(f)-1])
		require.ErrorIs(t, err, ErrFrame)
	})
}

func newPair(t *testing.T) (server, instance *ipc.End) {
	p, err := ipc.NewPair(ipc.Options{Buffers: 2048})
	require.NoError(t, err)
	server, err = p.Attach(ipc.ServerSide)
	require.NoError(t, err)
	instance, err = p.Attach(ipc.InstanceSide)
	require.NoError(t, err)
	require.NoError(t, p.Close())
	return server, instance
}

// Whatever a policy sends, the driver neither panics nor breaks the rules.
func FuzzHostilePolicy(f *testing.F) {
	h := header{kind: kindBatch, count: 1, id: 1, agent: cs.NoCPU}
	b := make([]byte, headerSize+txnSize)
	h.put(b)
	putTxn(b[headerSize:], &cs.Txn{CPU: 0, Task: 1, TaskSeq: 1})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := cs.NewMachine(2)
		require.NoError(t, err)
		e, err := m.NewEnclave(cs.FirstCPUs(2), cs.EnclaveOptions{})
		require.NoError(t, err)
		require.NoError(t, e.Attach(0, false))
		e.Rescan(0, nil)
		_, err = e.Enter(0, true, cs.Hints{})
		require.NoError(t, err)
		d := &Driver{enclave: e, cores: 2, answer: make([]byte, headerSize+cs.MaxCPUs)}
		if err := d.commit(0, append(make([]byte, ipc.VnetHdrLen), b...)); err == nil {
			require.Equal(t, headerSize+len(d.txns), d.owed)
		}
		for _, c := range []cs.CPU{0, 1} {
			require.LessOrEqual(t, m.Running(c), cs.Task(1))
		}
	})
}

// Whatever an actuator sends, the loop does not panic.
func FuzzHostileActuator(f *testing.F) {
	b := make([]byte, headerSize+setSize)
	(&header{kind: kindStart}).put(b)
	b[headerSize] = 3
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := policies.New("ias", nil)
		require.NoError(t, err)
		l := &Loop{agent: cs.NewAgent(p), traits: p.Traits(), words: &Page{}, clock: func() cs.Time { return 0 }}
		l.start(&starting{cpus: cs.FirstCPUs(2)})
		_ = l.take(append(make([]byte, ipc.VnetHdrLen), b...))
		_ = l.take(append(make([]byte, ipc.VnetHdrLen), b...))
	})
}

// plant is a machine whose tasks do a number of turns of running, and then end:
// hardware for tests, driven as fast as the policy decides.
type plant struct {
	mu      sync.Mutex
	m       *cs.Machine
	e       *cs.Enclave
	left    map[cs.Task]int
	blocked []cs.Task
	rng     *rand.Rand
	now     cs.Time
	done    int
}

func newPlant(t *testing.T, cores, tasks, turns int, board cs.Board, queue int) *plant {
	m, err := cs.NewMachine(cores)
	require.NoError(t, err)
	e, err := m.NewEnclave(cs.FirstCPUs(cores), cs.EnclaveOptions{Board: board, QueueLen: queue, RunnableTimeout: 5 * time.Second})
	require.NoError(t, err)
	p := &plant{m: m, e: e, left: map[cs.Task]int{}, rng: rand.New(rand.NewPCG(1, 2))}
	for i := range tasks {
		task, err := e.Enter(0, true, cs.Hints{Class: cs.Class(i % 2), Group: uint32(i % 3)})
		require.NoError(t, err)
		p.left[task] = turns
	}
	return p
}

// advance has each running task do something, and wakes some that sleep.
func (p *plant) advance(t *testing.T) {
	p.now += 50 * time.Microsecond
	for c := range cs.CPU(p.m.CPUs()) {
		task := p.m.Running(c)
		if task == cs.NoTask {
			continue
		}
		p.left[task]--
		switch n := p.rng.IntN(4); {
		case p.left[task] == 0:
			require.NoError(t, p.e.Die(p.now, task))
			delete(p.left, task)
			p.done++
		case n == 0:
			require.NoError(t, p.e.Yield(p.now, task))
		case n == 1:
			require.NoError(t, p.e.Block(p.now, task))
			p.blocked = append(p.blocked, task)
		}
	}
	for _, task := range p.blocked {
		require.NoError(t, p.e.Wakeup(p.now, task))
	}
	p.blocked = p.blocked[:0]
	p.m.Actions()
}

// serve steps the driver until all tasks have ended, or the policy has.
func (p *plant) serve(t *testing.T, d *Driver, until func() bool) error {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		p.mu.Lock()
		p.advance(t)
		err := d.Step(p.now)
		over := len(p.left) == 0 || until != nil && until()
		idle := p.e.Tasks() > 0 && !p.anyRunning()
		p.mu.Unlock()
		if err != nil || over {
			return err
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d tasks left, %+v", len(p.left), d.Stats())
		}
		if idle {
			if err := d.Wait(); err != nil {
				return err
			}
		}
	}
}

func (p *plant) anyRunning() bool {
	for c := range cs.CPU(p.m.CPUs()) {
		if p.m.Running(c) != cs.NoTask {
			return true
		}
	}
	return false
}

func clock() cs.Time { return monotonic() }

// All policies, over rings: every task ends. Small queues overflow on the way.
func TestRings(t *testing.T) {
	for _, name := range policies.Names() {
		for _, queue := range []int{2, 4096} {
			t.Run(name, func(t *testing.T) {
				page, err := NewPage()
				require.NoError(t, err)
				defer page.Close()
				p := newPlant(t, 4, 300, 40, page, queue)
				server, instance := newPair(t)
				policy, err := policies.New(name, nil)
				require.NoError(t, err)
				d, err := NewDriver(0, p.e, server, policy.Traits())
				require.NoError(t, err)
				ended := make(chan error, 1)
				go func() { ended <- NewLoop(policy, instance, page, clock, 0).Run() }()
				require.NoError(t, p.serve(t, d, nil))
				require.Equal(t, 300, p.done)
				require.NoError(t, d.Close(p.now))
				select {
				case err := <-ended:
					require.True(t, Ended(err) || errors.Is(err, net.ErrClosed), "%v", err)
				case <-time.After(time.Minute):
					t.Fatal("the policy does not notice that the actuator has gone")
				}
				require.NoError(t, instance.Close())
				require.NotZero(t, d.Stats().Rescans)
				if queue == 2 && !policy.Traits().PerCPU {
					require.Greater(t, d.Stats().Rescans, uint64(1))
				}
			})
		}
	}
}

func TestPage(t *testing.T) {
	w, err := NewPage()
	require.NoError(t, err)
	defer w.Close()
	dup, err := dupFD(w.FD())
	require.NoError(t, err)
	r, err := OpenPage(dup)
	require.NoError(t, err)
	defer r.Close()
	only := cs.FirstCPUs(2)
	s := cs.Status{Present: true, Runnable: true, CPU: 3, Seq: 9, Runtime: 7}
	w.Show(5, s, &only)
	got, ok := r.Status(5)
	require.True(t, ok)
	require.Equal(t, s, got)
	require.True(t, r.Allowed(5, 1))
	require.False(t, r.Allowed(5, 2))
	w.Show(5, s, nil)
	require.True(t, r.Allowed(5, 2))
	for _, odd := range []cs.Task{PageTasks, 1 << 31} {
		w.Show(odd, s, nil)
		require.True(t, r.Allowed(odd, 0))
		_, ok := r.Status(odd)
		require.False(t, ok)
	}
	require.True(t, r.Allowed(5, -1))
	require.True(t, r.Allowed(5, cs.MaxCPUs))
	null, err := os.Open("/dev/null")
	require.NoError(t, err)
	defer null.Close()
	dup, err = dupFD(int(null.Fd()))
	require.NoError(t, err)
	_, err = OpenPage(dup)
	require.ErrorIs(t, err, ErrPage)
	require.Error(t, writable(w.FD()), "a reader cannot map the page to write to it")
}

func BenchmarkRings(b *testing.B) {
	p, err := ipc.NewPair(ipc.Options{})
	require.NoError(b, err)
	server, err := p.Attach(ipc.ServerSide)
	require.NoError(b, err)
	instance, err := p.Attach(ipc.InstanceSide)
	require.NoError(b, err)
	require.NoError(b, p.Close())
	m, err := cs.NewMachine(1)
	require.NoError(b, err)
	e, err := m.NewEnclave(cs.FirstCPUs(1), cs.EnclaveOptions{})
	require.NoError(b, err)
	task, err := e.Enter(0, true, cs.Hints{})
	require.NoError(b, err)
	policy, err := policies.New("sol", nil)
	require.NoError(b, err)
	d, err := NewDriver(0, e, server, policy.Traits())
	require.NoError(b, err)
	page := &Page{}
	l := NewLoop(policy, instance, page, clock, 0)
	turn := func() {
		require.NoError(b, d.Step(0))
		_, err := l.turnOnce()
		require.NoError(b, err)
	}
	turn()
	turn()
	turn()
	require.Equal(b, task, m.Running(0))
	b.ReportAllocs()
	for b.Loop() {
		_ = e.Yield(0, task)
		for m.Running(0) == cs.NoTask {
			turn()
		}
		m.Actions()
	}
	require.NoError(b, d.Close(0))
	require.NoError(b, instance.Close())
}

// A policy that reads makes progress, one that does not makes none, pinged or not.
func TestProgress(t *testing.T) {
	m, err := cs.NewMachine(1)
	require.NoError(t, err)
	e, err := m.NewEnclave(cs.FirstCPUs(1), cs.EnclaveOptions{})
	require.NoError(t, err)
	server, instance := newPair(t)
	policy, err := policies.New("sol", nil)
	require.NoError(t, err)
	d, err := NewDriver(0, e, server, policy.Traits())
	require.NoError(t, err)
	progress := func() (uint64, bool) {
		read, all, err := d.Progress()
		require.NoError(t, err)
		return read, all
	}
	first, all := progress()
	require.True(t, all, "nothing was sent")
	require.NoError(t, d.Step(0))
	for range 3 {
		require.NoError(t, d.Ping())
		read, all := progress()
		require.False(t, all)
		require.Equal(t, first, read)
	}
	ended := make(chan error, 1)
	go func() { ended <- NewLoop(policy, instance, e, clock, 0).Run() }()
	require.Eventually(t, func() bool {
		read, all := progress()
		return all && read != first
	}, time.Minute, time.Millisecond, "a loop passes over pings")
	require.NoError(t, d.Close(0))
	<-ended
	require.NoError(t, instance.Close())
	_, _, err = d.Progress()
	require.Error(t, err)
	require.Error(t, d.Ping())
}

// While the ring is full nothing that is sent looks like progress.
func TestProgressFull(t *testing.T) {
	m, err := cs.NewMachine(1)
	require.NoError(t, err)
	e, err := m.NewEnclave(cs.FirstCPUs(1), cs.EnclaveOptions{QueueLen: 1 << 16})
	require.NoError(t, err)
	server, instance := newPair(t)
	d, err := NewDriver(0, e, server, cs.Traits{Name: "none"})
	require.NoError(t, err)
	require.NoError(t, d.Step(0))
	task, err := e.Enter(0, true, cs.Hints{})
	require.NoError(t, err)
	for i := 0; !d.full; i++ {
		require.Less(t, i, 1<<16)
		require.NoError(t, e.Block(0, task))
		require.NoError(t, e.Wakeup(0, task))
		require.NoError(t, d.Step(0))
	}
	before, all, err := d.Progress()
	require.NoError(t, err)
	require.False(t, all)
	require.NoError(t, d.Ping())
	require.NoError(t, d.Step(0))
	after, _, err := d.Progress()
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.NoError(t, d.Close(0))
	require.NoError(t, instance.Close())
}

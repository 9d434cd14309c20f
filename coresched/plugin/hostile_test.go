package plugin

import (
	"errors"
	"math"
	"math/rand/v2"
	"net/rpc"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
	"junction/ipc"
)

// hostilePrefix in serveEnv makes the test's program a policy that behaves badly.
const hostilePrefix = "hostile:"

// hostile is both ends of the control calls of such a policy, as go-plugin wants them.
type hostile struct{ how string }

func (h *hostile) Server(*goplugin.MuxBroker) (any, error) { return &hostileServer{h.how}, nil }

func (*hostile) Client(*goplugin.MuxBroker, *rpc.Client) (any, error) {
	return nil, errors.New("nobody's client")
}

func serveHostile(how string) {
	goplugin.Serve(&goplugin.ServeConfig{HandshakeConfig: handshake, Plugins: goplugin.PluginSet{pluginName: &hostile{how}}})
}

type hostileServer struct{ how string }

// Traits: some are none of a policy's.
func (s *hostileServer) Traits(_ struct{}, reply *cs.Traits) error {
	*reply = cs.Traits{Name: "hostile"}
	switch s.how {
	case "nameless":
		reply.Name = ""
	case "escapes":
		reply.Name = "sol\x1b[2J"
	case "long name":
		reply.Name = strings.Repeat("x", maxName+1)
	case "grouping":
		reply.Group = cs.Sync + 1
	}
	return nil
}

// Begin has the rings, and does with them what it likes.
func (s *hostileServer) Begin(struct{}, *struct{}) error {
	if s.how == "scribble" {
		go scribble()
		return nil
	}
	end, err := ipc.Attach(ipc.InstanceSide, [ipc.FilesPerEnd]int{firstRingFD, firstRingFD + 1, firstRingFD + 2})
	if err != nil {
		return err
	}
	go misbehave(s.how, end)
	return nil
}

// scribble writes over all of the rings' memory.
func scribble() {
	rng := rand.New(rand.NewPCG(1, 1))
	for fd := firstRingFD; fd < pageFD; fd++ {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Size == 0 {
			continue
		}
		b, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			continue
		}
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
	}
	os.Exit(0) // which closes the bells, and so is noticed
}

// misbehave sends what a policy does not.
func misbehave(how string, end *ipc.End) {
	rng := rand.New(rand.NewPCG(2, 2))
	frames := make([][]byte, 64)
	for id := uint32(1); ; id++ {
		n, err := end.Receive(frames)
		if err != nil {
			return
		}
		if how == "deaf" {
			time.Sleep(time.Hour)
		}
		results := false
		for _, f := range frames[:n] {
			h, _, err := parse(f)
			results = results || err == nil && h.kind == kindResults
		}
		end.Release()
		if how == "strangers" && id > 1 && !results {
			id--
			_ = end.Wait()
			continue
		}
		_ = end.Transmit(nil, [][]byte{evil(how, id, rng)}) // if there is room
		if how == "flood" {
			_ = end.Transmit(nil, [][]byte{evil(how, id+1, rng)})
		}
		_ = end.Flush()
		if how == "leaves" {
			_ = end.Close()
		}
	}
}

// evil makes a frame.
func evil(how string, id uint32, rng *rand.Rand) []byte {
	if how == "garbage" {
		b := make([]byte, headerSize+rng.IntN(200))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		b[0] = byte(kinds) + b[0]%100
		return b
	}
	h := header{kind: kindBatch, count: 4, id: id, agent: cs.CPU(rng.IntN(9) - 2), group: cs.Grouping(rng.IntN(3))}
	switch how {
	case "long":
		h.count = cs.MaxCPUs
	case "results":
		return headed(header{kind: kindResults, count: 3, id: id}, 3)
	}
	b := headed(h, h.count*txnSize)
	for i := range h.count {
		x := cs.Txn{CPU: cs.CPU(rng.IntN(8) - 2), Task: cs.Task(rng.IntN(500)), TaskSeq: cs.Seq(rng.IntN(4)), AgentSeq: cs.Seq(rng.IntN(3))}
		if rng.IntN(4) == 0 {
			x.CPU, x.Task = cs.CPU(rng.Int32()), cs.Task(math.MaxUint32-rng.Uint32()%9)
		}
		putTxn(b[headerSize+i*txnSize:], &x)
	}
	return b
}

func headed(h header, body int) []byte {
	b := make([]byte, headerSize+body)
	h.put(b)
	return b
}

// TestHostilePolicy: whatever a policy's process does, it ends with the loss of its
// enclave, tasks are where they may be all the time, and a successor goes on.
func TestHostilePolicy(t *testing.T) {
	for how, want := range map[string]error{
		"garbage": ErrFrame, "results": ErrFrame, "flood": ErrFrame, "long": ErrFrame, "scribble": ipc.ErrPeer, "leaves": ipc.ErrGone,
		"strangers": errWatchdog, "deaf": errWatchdog,
	} {
		t.Run(how, func(t *testing.T) {
			p, page := newProcessPlant(t)
			process := startHostile(t, how, page)
			require.Equal(t, "hostile", process.Traits.Name)
			d := p.attach(t, process)
			err := p.bear(t, d, want == errWatchdog)
			t.Logf("it lost its enclave: %v; %+v", err, p.e.Counts())
			if how != "scribble" || !errors.Is(err, ipc.ErrGone) { // its end may be seen first
				require.ErrorIs(t, err, want)
			}
			p.fallBack(t, d)
			process.Kill()
			require.True(t, process.Exited())
			p.succeed(t, page, "sol")
		})
	}
}

func startHostile(t *testing.T, how string, page *Page) *Process {
	process, err := tryHostile(how, page)
	require.NoError(t, err)
	return process
}

func tryHostile(how string, page *Page) (*Process, error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+hostilePrefix+how)
	return Start(cmd, page, os.Stderr, time.Minute)
}

var errWatchdog = errors.New("it lets tasks wait for too long")

// bear steps the driver until the policy is found to be broken, by the watchdog if
// that looks.
func (p *plant) bear(t *testing.T, d *Driver, watchdog bool) error {
	const most = 2 * time.Minute
	defer time.AfterFunc(most, d.Wake).Stop()
	for deadline := time.Now().Add(most); ; {
		p.advance(t)
		if err := d.Step(p.now); err != nil {
			return err
		}
		on := map[cs.Task]bool{}
		for c := range cs.CPU(p.m.CPUs()) {
			task := p.m.Running(c)
			require.False(t, task != cs.NoTask && on[task], "on two cores")
			require.True(t, task == cs.NoTask || p.e.Status(p.now, task).OnCPU)
			on[task] = true
		}
		if _, late := p.e.Stalled(p.now); late && watchdog {
			return errWatchdog
		} else if !watchdog {
			if err := d.Wait(); err != nil {
				return err
			}
		}
		require.True(t, time.Now().Before(deadline), "it goes on")
	}
}

// TestOddTraits: what is shown to operators is a name.
func TestOddTraits(t *testing.T) {
	page, err := NewPage()
	require.NoError(t, err)
	defer page.Close()
	for _, how := range []string{"nameless", "escapes", "long name", "grouping"} {
		_, err := tryHostile(how, page)
		require.ErrorIs(t, err, ErrNoPolicy, how)
		require.ErrorContains(t, err, "its Traits have", how)
		require.NotContains(t, err.Error(), "\x1b")
	}
}

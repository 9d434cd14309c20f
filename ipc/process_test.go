package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// roleVariable names the side that a child process takes; it echoes all frames.
// Or it talks, see talkRole.
const roleVariable = "JUNCTION_IPC_TEST_ROLE"

// runRole is the child: the End's descriptors are 3, 4 and 5.
func runRole(role string) int {
	var err error
	if messages, ok := strings.CutPrefix(role, talkRole); ok {
		err = talkProcess(messages)
	} else {
		var side int
		if side, err = strconv.Atoi(role); err == nil {
			err = echoProcess(Side(side))
		}
	}
	if err != nil && !errors.Is(err, ErrGone) {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

func echoProcess(side Side) error {
	e, err := Attach(side, [FilesPerEnd]int{3, 4, 5})
	if err != nil {
		return err
	}
	frames := make([][]byte, 16)
	for {
		n, err := e.Receive(frames)
		if err != nil {
			return err
		}
		for _, f := range frames[:n] {
			if err := sendAll(e, (*[VnetHdrLen]byte)(f), f[VnetHdrLen:]); err != nil {
				return err
			}
		}
		// Release only what is on its way: then nothing is lost with this process.
		if err := e.Flush(); err != nil {
			return err
		}
		e.Release()
		if n == 0 {
			if err := e.Wait(); err != nil {
				return err
			}
		}
	}
}

func startEcho(t testing.TB, p *Pair, side Side) *exec.Cmd {
	return startChild(t, p, side, strconv.Itoa(int(side)))
}

// startChild starts a process with a side's descriptors, in a role.
func startChild(t testing.TB, p *Pair, side Side, role string) *exec.Cmd {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	for _, fd := range p.Files(side) {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		require.NoError(t, err)
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(dup), "ring"))
	}
	require.NoError(t, cmd.Start())
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	return cmd
}

func kill(t testing.TB, cmd *exec.Cmd) {
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // says that it was killed
}

// TestKilledProcess: the process on the other side echoes frames and is killed
// again and again at arbitrary points, and another one takes over. Every frame
// comes back at least once, the first time in order.
func TestKilledProcess(t *testing.T) {
	kills := 30
	if testing.Short() {
		kills = 8
	}
	for child := range sides {
		t.Run(child.String(), func(t *testing.T) {
			p, err := NewPair(small)
			require.NoError(t, err)
			defer p.Close()
			e, err := p.Attach(1 - child)
			require.NoError(t, err)
			defer e.Close()
			cmd := startEcho(t, p, child)
			defer func() { kill(t, cmd) }()

			stop := make(chan struct{})
			sent := make(chan uint64, 1)
			sendErr := make(chan error, 1)
			go func() {
				n, err := sendUntil(e, stop)
				sent <- n
				sendErr <- err
				e.Wake()
			}()
			next := uint64(0)
			for range kills {
				until := next + 1 + uint64(rand.IntN(3000))
				next = collect(t, e, next, until)
				kill(t, cmd)
				cmd = startEcho(t, p, child)
			}
			close(stop)
			e.Wake()
			require.NoError(t, waitFor(t, e, &next, sendErr))
			total := <-sent
			next = collect(t, e, next, total)
			require.Equal(t, total, next)
			require.Empty(t, nonZero(e.Stats().Breaches))
		})
	}
}

func nonZero(m map[string]uint64) map[string]uint64 {
	for k, v := range m {
		if v == 0 {
			delete(m, k)
		}
	}
	return m
}

func lengthOf(seq uint64) int {
	if seq%97 == 0 {
		return MaxFrame - int(seq%64)
	}
	return MinFrame + int(seq*31%3000)
}

// sendUntil sends numbered frames until stop is closed.
func sendUntil(e *End, stop chan struct{}) (n uint64, err error) {
	buf := make([]byte, MaxFrame)
	for ; ; n++ {
		select {
		case <-stop:
			return n, e.Flush()
		default:
		}
		hdr, frame := frameOf(buf, n, lengthOf(n))
		if err := sendAll(e, hdr, frame); err != nil {
			return n, err
		}
		if n%8 == 0 {
			if err := e.Flush(); err != nil {
				return n, err
			}
		}
	}
}

// collect receives echoes, of which the next new one is number next, until
// number until-1 has come.
func collect(t *testing.T, e *End, next, until uint64) uint64 {
	for next < until {
		next = collectBatch(t, e, next)
		if next < until {
			require.NoError(t, e.Wait())
		}
	}
	return next
}

func collectBatch(t *testing.T, e *End, next uint64) uint64 {
	frames := make([][]byte, 64)
	scratch := make([]byte, MaxFrame)
	for {
		n, err := e.Receive(frames)
		require.NoError(t, err)
		if n == 0 {
			return next
		}
		for _, f := range frames[:n] {
			seq := binary.LittleEndian.Uint64(f) & (1<<48 - 1) // the length is behind, in bytes 8 and 9
			require.LessOrEqual(t, seq, next, "a frame is missing")
			require.NoError(t, verify(f, seq, lengthOf(seq), scratch))
			next = max(next, seq+1)
		}
		e.Release()
	}
}

// waitFor goes on receiving until done delivers.
func waitFor(t *testing.T, e *End, next *uint64, done chan error) error {
	for {
		select {
		case err := <-done:
			return err
		default:
			*next = collectBatch(t, e, *next)
			select {
			case err := <-done:
				return err
			default:
				require.NoError(t, e.Wait())
			}
		}
	}
}

// TestPeerProcessGone: when nobody else holds the other side, its death is seen
// at once, and what it had flushed can still be received.
func TestPeerProcessGone(t *testing.T) {
	p, err := NewPair(small)
	require.NoError(t, err)
	e, err := p.Attach(ServerSide)
	require.NoError(t, err)
	defer e.Close()
	cmd := startEcho(t, p, InstanceSide)
	require.NoError(t, p.Close())
	hdr, frame := frameOf(make([]byte, 100), 0, 100)
	require.NoError(t, sendAll(e, hdr, frame))
	require.NoError(t, e.Flush())
	for err == nil && e.rx.ring.idle() {
		err = e.Wait()
	}
	require.NoError(t, err)
	kill(t, cmd)
	got := make([][]byte, 2)
	n, err := e.Receive(got)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	e.Release()
	for err == nil {
		err = e.Wait()
	}
	require.ErrorIs(t, err, ErrGone)
	for err = nil; err == nil || errors.Is(err, ErrFull); {
		if err = sendAll(e, hdr, frame); err == nil {
			err = e.Flush()
		}
	}
	require.ErrorIs(t, err, ErrGone)
}

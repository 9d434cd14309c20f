package hints

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	cs "junction/coresched"
)

func newTable(t testing.TB, o Options) *Table {
	w, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return w
}

func reader(t testing.TB, w *Table) *Reader {
	fd, err := unix.FcntlInt(uintptr(w.fd), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	r, err := Open(fd)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func TestTable(t *testing.T) {
	w := newTable(t, Options{Items: 20, Classes: 2})
	r := reader(t, w)
	require.Len(t, r.items, 32)
	require.Len(t, r.classes, 2)
	var s Said
	require.False(t, r.Read(7, &s))
	it, err := w.Item(7)
	require.NoError(t, err)
	require.True(t, r.Read(7, &s))
	require.Equal(t, Said{}, s, "it says nothing yet")
	require.NoError(t, w.SetClass(1, Class{Latency, time.Millisecond}))
	it.Set(Hint{Deadline: 5, Class: 1, Idle: true})
	require.True(t, r.Read(7, &s))
	require.Equal(t, Said{Hint{5, 1, true}, Class{Latency, time.Millisecond}}, s)
	it.Set(Hint{Class: 9})
	require.True(t, r.Read(7, &s))
	require.Equal(t, Said{Hint: Hint{Class: 9}}, s, "a work class that there is not says nothing")
	s.Idle = true
	it.Release()
	require.False(t, r.Read(7, &s))
	require.Zero(t, s)
	require.ErrorIs(t, w.SetClass(2, Class{}), ErrTable)
	_, err = w.Item(0)
	require.ErrorIs(t, err, ErrTable)
	require.False(t, r.Read(-1, &s))
}

// Threads whose numbers collide have their own items while there is room.
func TestFull(t *testing.T) {
	w, r, err := Local(Options{Items: 64})
	require.NoError(t, err)
	for i := range Probes {
		it, err := w.Item(5 + 64*i)
		require.NoError(t, err)
		it.Set(Hint{Deadline: cs.Time(i + 1)})
	}
	_, err = w.Item(5 + 64*Probes)
	require.ErrorIs(t, err, ErrFull)
	var s Said
	for i := range Probes {
		require.True(t, r.Read(5+64*i, &s))
		require.Equal(t, cs.Time(i+1), s.Deadline)
	}
	it, err := w.Item(5)
	require.NoError(t, err)
	it.Release()
	_, err = w.Item(5 + 64*Probes)
	require.NoError(t, err)
	require.True(t, r.Read(5+64*Probes, &s))
	require.Zero(t, s.Deadline, "nothing is left of whose place it was")
}

func TestOver(t *testing.T) {
	base := cs.Hints{Group: 3, Nice: 2, Class: cs.BestEffort, Deadline: 1}
	for _, c := range []struct {
		said Said
		want cs.Hints
	}{
		{Said{}, base},
		{Said{Work: Class{QoS: 77}}, base},
		{Said{Work: Class{QoS: Latency}}, cs.Hints{Group: 3, Nice: 2, Class: cs.LatencyCritical, Deadline: 1}},
		{Said{Hint{Deadline: 9}, Class{Batch, 5}}, cs.Hints{Group: 3, Nice: 2, Class: cs.BestEffort, Deadline: 9}},
		{Said{Hint{}, Class{Default, 5}}, cs.Hints{Group: 3, Nice: 2, Class: cs.BestEffort, Deadline: 105}},
		{Said{Hint{}, Class{Default, math.MaxInt64}}, base},
	} {
		require.Equal(t, c.want, c.said.Over(base, 100), "%+v", c.said)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Items: -1}, {Items: MaxItems + 1}, {Classes: -1}, {Classes: MaxClasses + 1}} {
		_, err := New(o)
		require.ErrorIs(t, err, ErrTable, "%+v", o)
		_, _, err = Local(o)
		require.ErrorIs(t, err, ErrTable, "%+v", o)
	}
	w := newTable(t, Options{Items: MaxItems, Classes: MaxClasses})
	require.Len(t, reader(t, w).items, MaxItems)
}

// What is read is what was written at one moment.
func TestWhole(t *testing.T) {
	w, r, err := Local(Options{})
	require.NoError(t, err)
	it, err := w.Item(1)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200_000 {
			it.Set(Hint{Deadline: cs.Time(i), Class: uint32(i), Idle: i%2 == 1})
		}
	}()
	var s Said
	for seen := cs.Time(0); ; {
		select {
		case <-done:
			require.True(t, r.Read(1, &s))
			require.Equal(t, cs.Time(199_999), s.Deadline)
			return
		default:
		}
		if !r.Read(1, &s) {
			continue
		}
		require.Equal(t, uint32(s.Deadline), s.Class)
		require.Equal(t, s.Deadline%2 == 1, s.Idle)
		require.GreaterOrEqual(t, s.Deadline, seen)
		seen = s.Deadline
	}
}

// memfd is one with the given contents and seals.
func memfd(t testing.TB, b []byte, seals int) int {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	require.NoError(t, err)
	_, err = unix.Write(fd, b)
	require.NoError(t, err)
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	require.NoError(t, err)
	return fd
}

// honest is a table's bytes.
func honest(t testing.TB) []byte {
	w := newTable(t, Options{Items: 16, Classes: 1})
	it, err := w.Item(3)
	require.NoError(t, err)
	it.Set(Hint{Deadline: 4})
	return append([]byte(nil), w.m...)
}

func TestOpenErrors(t *testing.T) {
	good := honest(t)
	r, err := Open(memfd(t, good, unix.F_SEAL_SHRINK))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	_, err = Open(memfd(t, good, 0))
	require.ErrorIs(t, err, ErrTable, "it could shrink")
	for at, b := range map[int]byte{0: 0, 4: 2, 8: 17, 9: 255, 12: 200, 13: 255} {
		bad := append([]byte(nil), good...)
		bad[at] = b
		_, err := Open(memfd(t, bad, unix.F_SEAL_SHRINK))
		require.ErrorIs(t, err, ErrTable, "byte %d is %d", at, b)
	}
	_, err = Open(memfd(t, good[:len(good)-1], unix.F_SEAL_SHRINK))
	require.ErrorIs(t, err, ErrTable)
	_, err = Open(memfd(t, nil, unix.F_SEAL_SHRINK))
	require.ErrorIs(t, err, ErrTable)
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	_, err = Open(null)
	require.ErrorIs(t, err, ErrTable)
}

// Whatever a program writes into its table, reading it ends and says something
// bounded.
func FuzzRead(f *testing.F) {
	f.Add(honest(f), uint32(3))
	f.Fuzz(func(t *testing.T, b []byte, tid uint32) {
		r, err := Open(memfd(t, b, unix.F_SEAL_SHRINK))
		if err != nil {
			return
		}
		defer func() { require.NoError(t, r.Close()) }()
		var s Said
		if r.Read(int(int32(tid)), &s) {
			h := s.Over(cs.Hints{}, 1)
			require.GreaterOrEqual(t, h.Deadline, cs.Time(0))
			require.LessOrEqual(t, h.Class, cs.BestEffort)
		}
	})
}

func TestFind(t *testing.T) {
	_, _, err := Find(os.Getpid())
	require.ErrorIs(t, err, ErrNone)
	_, _, err = Find(1 << 30)
	require.ErrorIs(t, err, ErrNone)
	w, err := New(Options{})
	require.NoError(t, err)
	r, where, err := Find(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.True(t, Has(where))
	require.NoError(t, w.Close())
	require.False(t, Has(where))
	file, err := os.Create(filepath.Join(t.TempDir(), "memfd:"+name))
	require.NoError(t, err)
	defer file.Close()
	_, err = openAt(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	require.ErrorIs(t, err, ErrTable, "a name is not enough")
}

// compile compiles the program of testdata.
func compile(t *testing.T, argv ...string) string {
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skip("no compiler:", err)
	}
	bin := filepath.Join(t.TempDir(), "program")
	out, err := exec.Command(argv[0], append(argv[1:], "-I.", "-o", bin, "testdata/program.c")...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return bin
}

// The C header makes the same table: a program in C writes it, we find and read it.
func TestHeader(t *testing.T) {
	for _, argv := range [][]string{
		{"gcc", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2"},
		{"g++", "-xc++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"},
	} {
		t.Run(argv[2], func(t *testing.T) {
			cmd := exec.Command(compile(t, argv...))
			in, err := cmd.StdinPipe()
			require.NoError(t, err)
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			cmd.Stderr = os.Stderr
			require.NoError(t, cmd.Start())
			line, readErr := bufio.NewReader(out).ReadString('\n')
			if readErr == nil {
				checkProgram(t, cmd.Process.Pid, line)
			}
			require.NoError(t, in.Close())
			require.NoError(t, cmd.Wait())
			require.NoError(t, readErr)
		})
	}
}

func checkProgram(t *testing.T, pid int, line string) {
	var tid int
	var deadline int64
	_, err := fmt.Sscan(line, &tid, &deadline)
	require.NoError(t, err)
	require.LessOrEqual(t, deadline, int64(Now()))
	r, _, err := Find(pid)
	require.NoError(t, err)
	defer r.Close()
	var s Said
	require.True(t, r.Read(tid, &s))
	require.Equal(t, Said{Hint{cs.Time(deadline), 2, true}, Class{Batch, 5 * time.Millisecond}}, s)
	require.True(t, r.Read(tid+64*1000, &s))
	require.Equal(t, Said{Hint: Hint{Deadline: 7, Class: 1}}, s)
	require.False(t, r.Read(tid+64, &s))
}

func BenchmarkRead(b *testing.B) {
	w, r, err := Local(Options{})
	require.NoError(b, err)
	it, err := w.Item(1)
	require.NoError(b, err)
	it.Set(Hint{Deadline: 1})
	var s Said
	b.ReportAllocs()
	for b.Loop() {
		if !r.Read(1, &s) {
			b.Fatal("not there")
		}
	}
}

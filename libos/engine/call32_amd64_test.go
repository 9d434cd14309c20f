package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"pgregory.net/rapid"
)

// TestCall32: a call by int $0x80 sees the lower halves of its arguments, and
// changes no register but RAX, also when it is made again.
func TestCall32(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		any64 := func(name string) uint64 { return rapid.Uint64().Draw(t, name) }
		before := linux.PtraceRegs{
			Rbx: any64("rbx"), Rcx: any64("rcx"), Rdx: any64("rdx"), Rsi: any64("rsi"), Rdi: any64("rdi"), Rbp: any64("rbp"),
			R8: any64("r8"), R9: any64("r9"), R10: any64("r10"), R11: any64("r11"), Rsp: any64("rsp"), Eflags: any64("flags"),
			Rip: 0x401002,
		}
		const write32 = 4
		before.Rax = any64("upper half")<<32 | write32
		before.Orig_rax = ^uint64(0)
		regs := before
		was, ok := call32(&regs)
		require.True(t, ok)
		require.EqualValues(t, unix.SYS_WRITE, regs.Orig_rax)
		for i, pair := range [][2]uint64{
			{regs.Rdi, before.Rbx}, {regs.Rsi, before.Rcx}, {regs.Rdx, before.Rdx}, {regs.R10, before.Rsi}, {regs.R8, before.Rdi}, {regs.R9, before.Rbp},
		} {
			require.Equal(t, pair[1]&(1<<32-1), pair[0], "argument %d", i)
		}
		next := hostarch.Addr(regs.Rip)
		want := before
		want.Orig_rax = before.Rax
		switch rapid.IntRange(0, 3).Draw(t, "end") {
		case 0: // a result
			regs.Rax = any64("result")
			want.Rax = regs.Rax
		case 1: // to be made again
			regs.Rip, regs.Rax, regs.Orig_rax = regs.Rip-2, regs.Orig_rax, before.Rax
			want.Rip -= 2
		case 2: // so by the Sentry's restart block
			regs.Rip, regs.Rax, regs.Orig_rax = regs.Rip-2, unix.SYS_RESTART_SYSCALL, before.Rax
			want.Rip, want.Rax = want.Rip-2, restart32
		default: // elsewhere: with registers of its own
			regs.Rip = 0x500000
			want = regs
		}
		was.after32(&regs, next)
		require.Equal(t, want, regs)
		again := regs
		was.after32(&again, next)
		if regs.Rip == uint64(next) {
			require.Equal(t, regs, again, "once or twice")
		}
	})
}

// TestCalls32 compares a few numbers with those that every such program uses.
func TestCalls32(t *testing.T) {
	for nr, want := range map[uint32]uint64{1: unix.SYS_EXIT, 4: unix.SYS_WRITE, 20: unix.SYS_GETPID, 252: unix.SYS_EXIT_GROUP} {
		require.Equal(t, want, calls32[nr])
	}
	regs := linux.PtraceRegs{Rax: lseek32, Rcx: 0xffffffff}
	_, ok := call32(&regs)
	require.True(t, ok)
	require.Equal(t, ^uint64(0), regs.Rsi, "an offset of -1")
	for _, none := range []uint64{9999, 2, 1 << 31, 0xffffffff} {
		before := linux.PtraceRegs{Rax: none}
		regs = before
		_, ok = call32(&regs)
		require.False(t, ok)
		require.Equal(t, before, regs)
	}
}

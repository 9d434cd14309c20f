package e2e

import (
	"debug/elf"
	"debug/gosym"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"
)

// trap has the kernel send a process a signal when it comes to one of its own functions:
// it is killed, or stopped, there and nowhere else. The program is as users have it.
type trap struct {
	t    testing.TB
	hits *ebpf.Map // how often it has come there
	nth  uint64
	link link.Link
}

// needUprobes skips a test on a kernel that has none.
func needUprobes(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/sys/bus/event_source/devices/uprobe"); err != nil {
		t.Skipf("the kernel has no uprobes (CONFIG_UPROBE_EVENTS): %v", err)
	}
}

// setTrap waits for process pid, which runs program, to come to a function for the nth
// time, before it does anything there.
func setTrap(t testing.TB, program string, pid int, function string, nth uint64, sig syscall.Signal) *trap {
	t.Helper()
	x := &trap{t: t, nth: nth}
	var err error
	x.hits, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	require.NoError(t, err)
	t.Cleanup(func() { _ = x.hits.Close() })
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "junction_trap", Type: ebpf.Kprobe, License: "Apache-2.0", Instructions: asm.Instructions{
		asm.LoadMapValue(asm.R1, x.hits.FD(), 0),
		asm.LoadMem(asm.R2, asm.R1, 0, asm.DWord), // no two threads come there at once
		asm.Add.Imm(asm.R2, 1),
		asm.StoreMem(asm.R1, 0, asm.R2, asm.DWord),
		asm.JNE.Imm(asm.R2, int32(nth), "over"),
		asm.Mov.Imm(asm.R1, int32(sig)),
		asm.FnSendSignal.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("over"),
		asm.Return(),
	}})
	require.NoError(t, err)
	defer p.Close()
	e, err := link.OpenExecutable(program)
	require.NoError(t, err)
	x.link, err = e.Uprobe("", p, &link.UprobeOptions{Address: offsetOf(t, program, function), PID: pid})
	require.NoError(t, err, "trap at %s", function)
	t.Cleanup(func() { _ = x.link.Close() })
	return x
}

// offsetOf is where a function begins in a Go program's file, from what the runtime itself
// finds functions by: programs have no symbols.
func offsetOf(t testing.TB, program, function string) uint64 {
	t.Helper()
	f, err := elf.Open(program)
	require.NoError(t, err)
	defer f.Close()
	entry := functionsOf(t, program, f)[function]
	require.NotZero(t, entry, "%s has no function %s: it has another name now, or is part of its callers", program, function)
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Vaddr <= entry && entry < p.Vaddr+p.Filesz {
			return entry - p.Vaddr + p.Off
		}
	}
	t.Fatalf("%s is not in the file of %s", function, program)
	return 0
}

var functions sync.Map // of programs: map[string]uint64

// functionsOf is where a program's functions begin in memory.
func functionsOf(t testing.TB, program string, f *elf.File) map[string]uint64 {
	t.Helper()
	if known, ok := functions.Load(program); ok {
		return known.(map[string]uint64)
	}
	lines, err := f.Section(".gopclntab").Data()
	require.NoError(t, err)
	table, err := gosym.NewTable(nil, gosym.NewLineTable(lines, f.Section(".text").Addr))
	require.NoError(t, err)
	all := make(map[string]uint64)
	for i := range table.Funcs {
		all[table.Funcs[i].Name] = table.Funcs[i].Entry
	}
	functions.Store(program, all)
	return all
}

// sprung tells whether the process has come there.
func (x *trap) sprung() bool {
	var n uint64
	require.NoError(x.t, x.hits.Lookup(uint32(0), &n))
	return n >= x.nth
}

// await waits until it has.
func (x *trap) await() {
	x.t.Helper()
	require.Eventually(x.t, x.sprung, readyTimeout, time.Millisecond, fmt.Sprint("trap ", x.nth))
}

// remove takes it away.
func (x *trap) remove() { _ = x.link.Close() }
